"""Attaches an adapter that was saved, by us or by any other program that writes PEFT's format, for scoring."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file

from lorabench.errors import ModelError
from lorabench.models.base import FrozenBase
from lorabench.models.shape import read_header

FULL_WEIGHTS = "model.safetensors"
"""The file of a model that was trained as a whole."""


def attach_saved(base: FrozenBase, folder: Path) -> None:
    """Attach an adapter in PEFT's format for scoring. Raises ModelError for one that cannot be used."""
    if not (folder / "adapter_config.json").is_file():
        _load_full_weights(base, folder)
        return
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ModelError(f"{folder}: {path.name} is missing; only safetensors are read, never pickles")
    _check_configuration(folder / "adapter_config.json")
    saved = set(read_header(path))
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with without_deprecations():
            wrapped = PeftModel.from_pretrained(base.model, str(folder), is_trainable=False, local_files_only=True)
            wanted = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    except MemoryError:
        raise
    except Exception as error:  # PEFT raises whatever a strange adapter makes it meet
        message = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder}: the adapter does not fit the model: {message or type(error).__name__}") from None
    strange = sorted(name for name in saved ^ wanted if "embed" not in name)
    if strange:
        problem = f"the model has no place for {strange[0]}" if strange[0] in saved else f"it lacks {strange[0]}"
        raise ModelError(f"{folder}: the adapter does not fit the model: {problem}")
    wrapped.eval()
    base.choose_path()


@contextmanager
def saved_adapter(base: FrozenBase, folder: Path) -> Iterator[None]:
    """Inside, the base has the saved adapter (`attach_saved`); afterwards it is as it was, bit for bit."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = base.model
    weights = [(parameter, parameter.data) for parameter in model.parameters()]
    attributes = set(vars(model))
    try:
        attach_saved(base, folder)
        yield
    finally:
        base.model = model
        for name, module in list(model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                model.set_submodule(name, module.get_base_layer())
        for name in set(vars(model)) - attributes:  # PEFT's note that the model has an adapter
            delattr(model, name)
        for parameter, data in weights:
            parameter.data = data
        base.choose_path()


def _check_configuration(path: Path) -> None:
    """Refuse what would import modules or fetch other adapters, and what PEFT does not know."""
    from peft import PeftType

    try:
        values = json.loads(path.read_bytes())
        kind = str(values["peft_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{path} is not the configuration of an adapter") from None
    if kind not in {known.value for known in PeftType} or kind == PeftType.XLORA.value:
        raise ModelError(f"{path}: adapters of the kind {kind[:80]!r} are not read")
    for key in ("megatron_config", "auto_mapping"):
        if values.get(key):
            raise ModelError(f"{path}: {key} names modules to import, which an adapter must not")


def _load_full_weights(base: FrozenBase, folder: Path) -> None:
    """Put a model that was trained as a whole in the place of the base's weights, computed as while it was trained."""
    path = folder / FULL_WEIGHTS
    if not path.is_file():
        raise ModelError(f"{folder}: there is no adapter here; a folder with adapter_config.json is expected")
    read_header(path)
    saved, own = load_file(path), dict(base.model.named_parameters())
    strange = sorted(name for name in {*saved, *own} if name not in saved or name not in own)
    strange += [name for name in own if name in saved and saved[name].shape != own[name].shape]
    if strange:
        raise ModelError(
            f"{folder}: the adapter does not fit the model: {strange[0]} is not in both, or differs in size"
        )
    for name, parameter in own.items():
        parameter.data = saved[name].to(parameter.device)  # in float32, whatever the base is held in
    base.use_reference_path("every weight was trained")


@contextmanager
def without_deprecations() -> Iterator[None]:
    """PEFT calls what Transformers has renamed; that is between the two of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        yield
