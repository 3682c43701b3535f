"""`modules_to_save`: modules of the base that are trained and saved whole beside an adapter, as PEFT calls them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lorabench.core.errors import ConfigError
from lorabench.methods.lora_settings import lora_settings
from lorabench.methods.settings import AdapterSettings
from lorabench.methods.targets import require_files
from lorabench.models.linears import HasLinears, is_embedding, is_head, is_tied


def whole_modules(shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> dict[str, int]:
    """Parameters of each module of `modules_to_save`, by its full path.

    A head that is the embedding is trained apart from it, as in PEFT. Raises ConfigError for a name that matches
    nothing, what carries an adapter already, and experts or their router.
    """
    asked = lora_settings(settings).modules_to_save
    if asked is None:
        return {}
    sizes = _sizes(shape, settings)
    chosen: set[str] = set()
    for name in asked.split(","):
        matching = {path for path in sizes if path == name or path.endswith(f".{name}")}
        if not matching:
            raise ConfigError(
                f"adapter.modules_to_save: {name!r} matches no module of the model. Accepted: names among "
                f"{', '.join(sorted({path.rsplit('.', 1)[-1] for path in sizes}))}"
            )
        if taken := sorted(matching & set(targets)):
            raise ConfigError(
                f"adapter.modules_to_save: {name!r} takes in {taken[0]}, which carries an adapter; leave it out here, "
                "or out of target_modules"
            )
        chosen |= matching
    return {path: sizes[path] for path in sizes if path in chosen}


def require_trainable(model: Any, paths: Collection[str]) -> None:
    """Raise ConfigError for a module whose weights are quantised, so that it cannot be trained whole."""
    import torch

    wide = {torch.float32, torch.bfloat16, torch.float16}
    for path in paths:
        types = {weight.dtype for weight in model.get_submodule(path).parameters()}
        if not types or not types <= wide:
            raise ConfigError(
                f"adapter.modules_to_save: {path} is quantised (base.quantization) and cannot be trained whole; name "
                "embeddings, norms or the head, or give base.quantization: none"
            )


def put_back(model: Any) -> None:
    """Take off PEFT's copies of modules that were trained whole: the base's own stand in their places again."""
    from peft.utils import ModulesToSaveWrapper

    for path, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(path, module.original_module)


def _sizes(shape: HasLinears, settings: AdapterSettings) -> Mapping[str, int]:
    """Parameters of each module that has some of its own, the head that is the embedding among them."""
    sizes: Counter[str] = Counter()
    for name, size in require_files(shape.parameters, settings).items():
        path = name.rpartition(".")[0]
        if path not in shape.experts and name not in shape.experts:
            sizes[path] += size
    config: Mapping[str, Any] = require_files(shape.config, settings)
    if is_tied(config) and not any(map(is_head, sizes)):
        sizes["lm_head"] = max(size for path, size in sizes.items() if is_embedding(path))
    return sizes
