"""Attaches an adapter that was saved, by us or by any other program that writes PEFT's format, for scoring.

What PEFT scores is what is scored here: through the fast path where it knows every part of the adapter, else through
PEFT's own forward pass. An adapter of which any tensor would stay without effect is refused.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorabench.core.errors import ModelError
from lorabench.methods.whole_modules import put_back
from lorabench.models.shape import read_header

if TYPE_CHECKING:
    from torch import Tensor

    from lorabench.models.base import FrozenBase

CONFIGURATION = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FULL_WEIGHTS = "model.safetensors"
"""The file of a model that was trained as a whole, or of those of its own weights that were."""
PART = {"holds": "the trained weights alone"}
"""What such a file says of itself where it holds a part."""
_TASKS = (None, "CAUSAL_LM")
NOT_READ = {
    "XLORA": "it mixes other adapters, which it names by their folders",
    "MULTITASK_PROMPT_TUNING": "it needs the number of a task beside each text",
    "POLY": "it needs the number of a task beside each text",
}
"""Kinds that cannot be scored on a text alone."""
_NAMING_KEYS = {
    "megatron_config": "names modules to import",
    "auto_mapping": "names modules to import",
    "prompt_tuning_init_state_dict_path": "names a file to load",
    "shadow_model": "names a model to load",
}
_HARMLESS_VALUES = {"shadow_model": "mirror"}


def attach_saved(base: FrozenBase, folder: Path) -> None:
    """Attach an adapter in PEFT's format for scoring. Raises ModelError for one that cannot be used.

    `base.model` is PEFT's model afterwards. The adapter may bring embeddings and a head of its own, so the base cannot
    be used without it any more.
    """
    if not (folder / CONFIGURATION).is_file():
        _load_full_weights(base, folder)
        return
    configuration = read_configuration(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{folder}: {path.name} is missing; only safetensors are read, never pickles")
    read_header(path)
    import torch
    from peft import PeftModel, PeftType
    from safetensors.torch import load_file

    from lorabench.models.causality import require_causal

    try:
        saved = load_file(path)
        if not saved:
            raise ModelError(f"{path} holds no weights: the model would score as it does without an adapter")
        _require_same_vocabulary(base, saved, folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what may not have been loaded is checked here, and nothing is merged
            wrapped = PeftModel.from_pretrained(
                base.model,
                str(folder),
                is_trainable=False,
                local_files_only=True,
                torch_device=str(base.device),
            )
            strange = _find_difference(wrapped, saved)
    except (ModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # PEFT raises whatever a strange adapter makes it meet
        message = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder}: the adapter does not fit the model: {message or type(error).__name__}") from None
    if strange:
        raise ModelError(f"{folder}: the adapter does not fit the model: {strange}")
    wrapped.eval().requires_grad_(False)
    if configuration["peft_type"] == PeftType.LN_TUNING or configuration.get("modules_to_save"):
        _widen(base, wrapped, saved)
    base.model = wrapped
    base.choose_path()
    require_causal(base.score_changes, f"{folder} ({configuration['peft_type']})")


@contextmanager
def saved_adapter(base: FrozenBase, folder: Path) -> Iterator[None]:
    """Inside, the base has a run's adapter (`attach_saved`); afterwards it is as it was, bit for bit.

    Not for adapters of others that bring embeddings or biases of the base, which PEFT writes over the base's own.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = base.model
    weights = [(parameter, parameter.data) for parameter in model.parameters()]
    attributes = set(vars(model))
    try:
        attach_saved(base, folder)
        yield
    finally:
        base.model = model
        put_back(model)
        for name, module in list(model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                model.set_submodule(name, module.get_base_layer())
        for name in set(vars(model)) - attributes:  # PEFT's note that the model has an adapter
            delattr(model, name)
        for parameter, data in weights:
            parameter.data = data
        base.has_wide_parts = False
        base.choose_path()


def _widen(base: FrozenBase, wrapped: Any, saved: Mapping[str, Tensor]) -> None:
    """Norms and whole modules are computed in float32 as they were trained, where PEFT holds them as the base's."""
    for name, parameter in wrapped.named_parameters():
        if (key := name.replace(".modules_to_save.default.", ".").replace(".default.", ".")) in saved:
            parameter.data = saved[key].to(parameter.device)
    base.has_wide_parts = True


def num_virtual_tokens(folder: Path) -> int:
    """Tokens of the model's context that the adapter takes for itself, before every text. Raises ModelError."""
    if not (folder / CONFIGURATION).is_file():
        return 0
    count = read_configuration(folder).get("num_virtual_tokens") or 0
    if not isinstance(count, int) or count < 0:
        raise ModelError(f"{folder / CONFIGURATION}: num_virtual_tokens is not a number of tokens")
    return count


def read_configuration(folder: Path) -> dict[str, Any]:
    """An adapter's own, in PEFT's format.

    Raises ModelError for what would import modules or load other files, and what cannot be scored on a text alone.
    """
    from peft import PeftType

    path = folder / CONFIGURATION
    try:
        values = dict(json.loads(path.read_bytes()))
        kind = str(values["peft_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{path} is not the configuration of an adapter") from None
    if kind not in {known.value for known in PeftType}:
        raise ModelError(f"{path}: adapters of the kind {kind[:80]!r} are not read")
    if kind in NOT_READ:
        raise ModelError(f"{path}: adapters of the kind {kind!r} are not read: {NOT_READ[kind]}")
    if values.get("task_type") not in _TASKS:
        raise ModelError(f"{path}: task_type is {str(values['task_type'])[:80]!r}; accepted: CAUSAL_LM, or none")
    if problem := problem_with(values):
        raise ModelError(f"{path}: {problem}")
    return values


def problem_with(values: Mapping[str, Any]) -> str:
    """What an adapter's configuration must not say; empty where it says none of it."""
    for key, deed in _NAMING_KEYS.items():
        if values.get(key) and values[key] != _HARMLESS_VALUES.get(key):
            return f"{key} {deed}, which an adapter must not"
    if values.get("alora_invocation_tokens"):
        return (
            "alora_invocation_tokens switches the adapter on after the last place where they stand, so that the score "
            "of a token would depend on later ones; give an adapter that is always on"
        )
    return ""


def _require_same_vocabulary(base: FrozenBase, saved: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse an adapter that was trained on a model whose vocabulary had been resized, and brings its embeddings."""
    tables = (base.model.get_input_embeddings(), base.model.get_output_embeddings())
    for name, module in base.model.named_modules():
        if not any(module is table for table in tables):
            continue
        for key in (f"base_model.model.{name}.weight", f"base_model.model.{name}.base_layer.weight"):
            if key in saved and len(saved[key]) != len(module.weight):
                raise ModelError(
                    f"{folder}: the adapter does not fit the model: it brings {len(saved[key])} rows for {name}, which "
                    f"has {len(module.weight)}; give the model as it was trained on, with its vocabulary resized "
                    f"(model.resize_token_embeddings({len(saved[key])}), then model.save_pretrained)"
                )


def _find_difference(wrapped: Any, saved: Mapping[str, Tensor]) -> str:
    """What of the file PEFT has not taken over as it stands there, or misses in it; empty where it is all the same.

    PEFT itself leaves out silently what it has no place for.
    """
    import torch
    from peft import get_peft_model_state_dict

    wanted = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    places = {**wrapped.state_dict(), **wanted}
    for name, tensor in saved.items():
        if name not in places:
            return f"the model has no place for {name}"
        place = places[name].detach().cpu()
        if place.shape != tensor.shape or not torch.allclose(place, tensor.to(place.dtype), 0.0, 0.0, equal_nan=True):
            return f"PEFT does not take over {name} as it stands in {WEIGHTS}"
    missing = sorted(set(wanted) - set(saved))
    return f"it lacks {missing[0]}" if missing else ""


def _load_full_weights(base: FrozenBase, folder: Path) -> None:
    """Put a model that was trained as a whole in the place of the base's weights, computed as while it was trained."""
    path = folder / FULL_WEIGHTS
    if not path.is_file():
        inside = sorted(place.parent.name for place in folder.glob(f"*/{CONFIGURATION}"))
        hint = f"; there are adapters in its folders {', '.join(inside)}: name one of them" if inside else ""
        raise ModelError(f"{folder}: there is no adapter here; a folder with {CONFIGURATION} is expected{hint}")
    read_header(path)
    from safetensors import safe_open
    from safetensors.torch import load_file

    saved, own = load_file(path), dict(base.model.named_parameters())
    with safe_open(path, "pt") as file:
        is_part = file.metadata() == PART
    if is_part:
        own = {name: parameter for name, parameter in own.items() if name in saved}
    strange = sorted(name for name in {*saved, *own} if name not in saved or name not in own)
    strange += [name for name in own if name in saved and saved[name].shape != own[name].shape]
    if strange:
        raise ModelError(
            f"{folder}: the adapter does not fit the model: {strange[0]} is not in both, or differs in size"
        )
    for name, parameter in own.items():
        parameter.data = saved[name].to(parameter.device)  # in float32, whatever the base is held in
    base.has_wide_parts = True
    base.use_reference_path("weights of the base were trained")
