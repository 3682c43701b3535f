"""Bases whose linear layers are held in four or eight bits; embeddings, norms and head stay as they are.

bitsandbytes makes and computes all of them but `fp8`, which is ours (`fast/float8.py`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from lorabench.core.errors import InputError, require_package

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BitsandbytesKind = Literal["nf4", "nf4-double", "int8"]
"""NF4 in blocks of 64 (`nf4-double`: their scales in eight bits), or LLM.int8: a scale for each row."""
BITSANDBYTES_KINDS: tuple[BitsandbytesKind, ...] = get_args(BitsandbytesKind)
Quantization = Literal["none", BitsandbytesKind, "fp8"]
"""fp8: E4M3, a scale for each row."""
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)


def quantization_of(name: str) -> Quantization:
    """By its name. Raises InputError with what is accepted."""
    for known in QUANTIZATIONS:
        if known == name:
            return known
    raise InputError(f"there is no quantisation {name[:40]!r}; accepted: {', '.join(QUANTIZATIONS)}")


def require_quantization(quantization: Quantization) -> None:
    """Raises MissingExtraError where its library is not installed."""
    if quantization in BITSANDBYTES_KINDS:
        require_bitsandbytes()


def require_bitsandbytes() -> None:
    """Raises MissingExtraError where it is not installed."""
    require_package("bitsandbytes", "a model in four or eight bits (bitsandbytes)", "qlora")


def loading_options(quantization: Quantization, dtype: torch.dtype) -> dict[str, Any]:
    """What Transformers' `from_pretrained` is given; products are computed in `dtype`. Raises MissingExtraError."""
    if quantization not in BITSANDBYTES_KINDS:
        return {}
    require_bitsandbytes()
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=quantization == "nf4-double",
    )
    return {"quantization_config": four_bits}


def keep_unpacked(model: nn.Module) -> None:
    """Keep the four-bit layers of a loaded model as they are saved, whatever the processor.

    With AVX512-BF16 they would pack their weights in place when they are first used without a gradient; after that
    gradients through them and what is dequantised are wrong, without a word.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            cast(Any, module).support_avx512bf16_for_cpu = False


def keep_scales(model: nn.Module) -> None:
    """Keep the scales of eight-bit layers where PEFT copies their weights, as DoRA on a processor does at each pass.

    bitsandbytes moves them out of a weight when it is first used, so a copy has none, and takes them from each new one.
    """
    for module in model.modules():
        if hasattr(module, "init_8bit_state"):
            cast(Any, module).init_8bit_state = partial(_take_state, module)


def _take_state(module: Any) -> None:
    weight, state = module.weight, module.state
    state.CB, weight.CB = weight.CB, None
    if weight.SCB is not None:
        state.SCB, weight.SCB = weight.SCB, None


def dequantize_into(module: nn.Module, scratch: Tensor) -> None:
    """Write the weight [out, in] of a quantised linear layer, as it stands for, to `scratch` of any float type."""
    import torch
    from bitsandbytes.functional import dequantize_4bit

    weight: Any = module.weight
    state = getattr(weight, "quant_state", None)
    if state is not None:
        scratch.copy_(dequantize_4bit(weight.data, state))
        return
    held = cast(Any, module).state
    codes, scales = (weight.data, weight.SCB) if held.CB is None else (held.CB, held.SCB)
    torch.mul(codes, scales[:, None] / 127, out=scratch)
