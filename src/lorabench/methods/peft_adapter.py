"""An adapter made of PEFT's modules, saved in PEFT's format."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorabench.core.errors import ModelError
from lorabench.methods.adapter import Adapter
from lorabench.methods.portable import BaseReference
from lorabench.methods.saved import WEIGHTS
from lorabench.methods.settings import AdapterSettings
from lorabench.methods.whole_modules import put_back

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lorabench.models.base import FrozenBase


class SavedByPeft(Adapter):
    """What is trained by PEFT's own modules, and saved in its format."""

    _peft: Any

    @property
    def trained_model(self) -> Any:
        """PEFT's model."""
        return self._peft

    @property
    def module_names(self) -> list[str]:
        """Full paths of the modules that carry an adapter, read from the model as it is."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [
            path for path, module in self._peft.get_base_model().named_modules() if isinstance(module, BaseTunerLayer)
        ]

    def configuration(self) -> Any:
        """PEFT's configuration of what is saved, the base apart."""
        config = copy.copy(self._peft.peft_config["default"])
        config.inference_mode = True
        for name, value in vars(config).items():
            if isinstance(value, set):  # which is written in another order each time
                setattr(config, name, sorted(value))
        return config

    def _write(self, folder: Path, base: BaseReference | None) -> None:
        """Write PEFT's `adapter_config.json` and `adapter_model.safetensors`."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        with self.as_saved():
            state = get_peft_model_state_dict(self._peft, save_embedding_layers=False)
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        config = self.configuration()
        if base is not None:
            config.base_model_name_or_path, config.revision = base.name_or_path, base.revision
        config.save_pretrained(str(folder))


class PeftAdapter(SavedByPeft):
    """LoRA's modules on the base, made from one of PEFT's configurations."""

    starts_in_place = False
    """Whether PEFT's initialisation writes over the base's weights rather than putting others in their place."""

    def __init__(
        self,
        base: FrozenBase,
        settings: AdapterSettings,
        config: Any,
        *,
        seed: int,
        num_trainable: int,
        is_empty: bool = False,
    ) -> None:
        """Attach it. `config.target_modules` are full paths; where it `is_empty`, its weights are left to be read.

        Raises ModelError where PEFT attaches something else, or not `num_trainable` parameters; the base is then as
        before.
        """
        import torch
        from peft import get_peft_model

        super().__init__(base, settings)
        targets, whole = list(config.target_modules), list(config.modules_to_save or ())
        published = {path: _held(base.model.get_submodule(path)).data for path in targets}
        if self.starts_in_place:
            published = {path: weight.clone() for path, weight in published.items()}
        torch.manual_seed(seed)
        try:
            with without_warnings(), explained():
                self._peft = get_peft_model(base.model, config, autocast_adapter_dtype=True, low_cpu_mem_usage=is_empty)
            if is_empty:
                _make_room(self._peft, base.device)
            base.model.eval()
            self.prepare(published)
            self.require_as_planned(targets, num_trainable)
        except BaseException:
            _undo(base.model, published)
            raise
        for parameter in self.parameters:
            parameter.data = parameter.data.float()
        base.has_wide_parts = bool(whole)
        if settings.dropout:
            base.dropout_modules = [module for name, module in base.model.named_modules() if "lora_dropout" in name]
        base.choose_path()

    def prepare(self, published: Mapping[str, Tensor]) -> None:
        """Called once, when PEFT's modules are there: choose what is trained, or keep what initialisation changed.

        `published` has the base's weights as they were before, by the full path of each adapted module.
        """

    def _take_off(self) -> None:
        put_back(self.base.model)
        self.base.model = self._peft.unload()


def _make_room(model: Any, device: torch.device) -> None:
    """Memory for the modules that PEFT has made without any."""
    for module in model.modules():
        if any(weight.is_meta for weight in module.parameters(recurse=False)):
            module.to_empty(device=device, recurse=False)


def _held(module: Any) -> Tensor:
    """The parameter that a layer holds its weight in; asked for its weight, one of eight-bit floats makes it whole."""
    from lorabench.fast.float8 import Float8Linear

    held: Tensor = module.codes if isinstance(module, Float8Linear) else module.weight
    return held


def _undo(model: Any, published: Mapping[str, Tensor]) -> None:
    """Undo an attachment that may be half done: later runs use the same base."""
    put_back(model)
    for path, weight in published.items():
        module = model.get_submodule(path)
        if hasattr(module, "get_base_layer"):
            module = module.get_base_layer()
            model.set_submodule(path, module)
        _held(module).data = weight
    if hasattr(model, "peft_config"):
        del model.peft_config
    model.requires_grad_(False)


@contextmanager
def explained() -> Iterator[None]:
    """Raises ModelError for modules that PEFT does not adapt."""
    try:
        yield
    except ValueError as error:
        message = " ".join(str(error).split())[:300]
        raise ModelError(
            f"adapter.target_modules: PEFT cannot adapt these modules: {message}; leave out the ones that it names"
        ) from None


@contextmanager
def without_warnings() -> Iterator[None]:
    """PEFT calls what Transformers has renamed, misses a compiler, or has not seen a norm; scores are checked here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", message="Failed to load the CUDA extension")
        warnings.filterwarnings("ignore", message="Setting boft_n_butterfly_factor to 1")
        warnings.filterwarnings("ignore", message="Unsupported layer type")
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        yield
