"""Merges an adapter into its base in float32, and checks that the merged model says what the adapted one did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lorabench.core.errors import InputError, RunError
from lorabench.core.machine import prepare_process
from lorabench.methods.portable import TOKENIZER_FILES
from lorabench.methods.saved import CONFIGURATION, attach_saved, num_virtual_tokens
from lorabench.models.base import load_base
from lorabench.models.entry import ModelLocation
from lorabench.models.quantized import Quantization
from lorabench.tokens.tokenizer import Tokeniser

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TOLERANCE = 1e-4
"""By what share of the largest logit those of the merged model may differ from the adapted one's, in float32."""
_PROBE_TOKENS = 64


def save_merged(location: ModelLocation, adapter: Path, folder: Path) -> float:
    """Write base and adapter as one Transformers folder in float32; returns the largest difference of their logits.

    Merged on the processor. Raises InputError for an adapter that cannot be merged, RunError where the merged model's
    logits are not the adapted model's.
    """
    import torch

    require_in_weights(adapter)
    prepare_process()
    base = load_base(location.folder, precision="fp32", device="cpu")
    attach_saved(base, adapter)
    ids = _probe(base.vocabulary_size)
    before = _logits(base.model, ids)
    allowed = TOLERANCE * max(1.0, float(before.abs().max()))
    merged = _merge(base.model, adapter)
    difference = float((_logits(merged, ids) - before).abs().max())
    if not difference <= allowed:
        raise RunError(
            f"{adapter}: merged into its base, logits differ by {difference:.2g} from the adapter's; at most "
            f"{allowed:.2g} is accepted, so the merged model was not written"
        )
    merged.config.dtype = torch.float32
    merged.save_pretrained(folder)
    _copy_tokenizer(adapter, location, folder)
    return difference


def save_base(location: ModelLocation, adapter: Path, folder: Path) -> None:
    """Write the base by itself as one Transformers folder in float32, with the tokenizer of a run's adapter."""
    import torch

    base = load_base(location.folder, precision="fp32", device="cpu")
    base.model.config.dtype = torch.float32
    base.model.save_pretrained(folder)
    _copy_tokenizer(adapter, location, folder)


def round_weights(merged: Path, folder: Path, dtype: torch.dtype) -> None:
    """Write a merged float32 folder again with every weight in `dtype`, file by file."""
    import torch
    from safetensors.torch import load_file, save_file

    for path in merged.iterdir():
        if path.suffix != ".safetensors":
            shutil.copyfile(path, folder / path.name)
            continue
        weights = {
            name: tensor.to(dtype) if tensor.dtype == torch.float32 else tensor
            for name, tensor in load_file(path).items()
        }
        save_file(weights, folder / path.name, {"format": "pt"})
    config = json.loads((folder / "config.json").read_bytes())
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def quantise_weights(merged: Path, folder: Path, quantization: Quantization) -> None:
    """Write a merged float32 folder again with its linear layers as bitsandbytes holds them, the rest in bfloat16."""
    base = load_base(merged, precision="bf16", device="cpu", quantization=quantization)
    base.model.save_pretrained(folder)
    for path in merged.iterdir():
        if not path.name.startswith("model") and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def require_in_weights(adapter: Path) -> None:
    """Raises InputError for an adapter that stands before the text and is in no weight, so that none can be merged."""
    if num_virtual_tokens(adapter):
        kind = json.loads((adapter / CONFIGURATION).read_bytes())["peft_type"]
        raise InputError(
            f"{adapter}: an adapter of the kind {kind} stands before the text and is in no weight, so it cannot be "
            "merged; accepted: --form adapter"
        )


def _copy_tokenizer(adapter: Path, location: ModelLocation, folder: Path) -> None:
    """The run's own tokenizer, kept beside its adapter, and the base's settings of generation where it has any."""
    for name in TOKENIZER_FILES:
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, folder / name)
    if (location.folder / "generation_config.json").is_file():
        shutil.copyfile(location.folder / "generation_config.json", folder / "generation_config.json")
    Tokeniser(folder)


def _merge(model: Any, adapter: Path) -> Any:
    """The base's own model with the adapter in its weights; what was trained as a whole is that already."""
    if not hasattr(model, "peft_type"):
        return model
    try:
        return model.merge_and_unload(safe_merge=True)
    except (NotImplementedError, ValueError, AttributeError, TypeError) as error:
        message = " ".join(str(error).split())[:300]
        raise InputError(f"{adapter}: the adapter cannot be merged: {message or type(error).__name__}") from None


def _probe(vocabulary_size: int) -> Tensor:
    """Token ids [1, T] that touch the whole vocabulary, the same in every run."""
    import torch

    ids = np.random.default_rng(0).integers(0, vocabulary_size, _PROBE_TOKENS)
    return torch.from_numpy(ids)[None]


def _logits(model: Any, ids: Tensor) -> Tensor:
    import torch

    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids).logits
    return logits.float().clone()
