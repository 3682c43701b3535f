"""Attaches a fresh adapter to the frozen base and takes it off again, leaving the base as it was, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from lorabench.methods.pissa import PissaLayer
from lorabench.methods.portable import BaseReference
from lorabench.methods.saved import FULL_WEIGHTS, without_deprecations
from lorabench.methods.settings import AdapterSettings
from lorabench.methods.targets import count_trainable, require_equal, resolve_targets
from lorabench.models.base import FrozenBase
from lorabench.models.loaded import LoadedLinears


class Adapter:
    """What is trained on a base: PEFT's modules, or every weight for `full`."""

    def __init__(self, base: FrozenBase, settings: AdapterSettings) -> None:
        self.base = base
        self.settings = settings
        self._peft: Any = None
        self._saved: dict[str, torch.Tensor] = {}
        self._pissa: list[PissaLayer] = []
        self._is_as_saved = False

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Trainable parameters, float32."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Trainable parameters with their names, in a fixed order."""
        model = self._peft if self._peft is not None else self.base.model
        return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)

    @property
    def num_trainable(self) -> int:
        """Trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters)

    @property
    def module_names(self) -> list[str]:
        """Full paths of the modules that carry an adapter, read from the model as it is; none for `full`."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        modules = self.base.model.named_modules() if self._peft is not None else ()
        return [path for path, module in modules if isinstance(module, BaseTunerLayer)]

    def require_as_planned(self, target_modules: Iterable[str], num_trainable: int) -> None:
        """Raise ModelError where what is attached is not what was planned, by full path and in number."""
        require_equal(target_modules, num_trainable, self.module_names, self.num_trainable)

    @contextmanager
    def as_saved(self) -> Iterator[None]:
        """Inside, the base computes what is read from `save`'s files: for PiSSA, plain LoRA on the unchanged base.

        Whatever is scored is scored so. There are no gradients inside, and afterwards all is as before.
        """
        if self._is_as_saved or not self._pissa:
            yield
            return
        trained = [layer.factors for layer in self._pissa]
        residuals = [layer.put(*layer.as_plain(), layer.published) for layer in self._pissa]
        self._is_as_saved = True
        self.base.choose_path()
        try:
            yield
        finally:
            for layer, factors, residual in zip(self._pissa, trained, residuals, strict=True):
                layer.put(*factors, residual)
            self._is_as_saved = False
            self.base.choose_path()

    def save(self, folder: Path, base: BaseReference | None = None) -> None:
        """Write PEFT's `adapter_config.json` and `adapter_model.safetensors`, or all weights for `full`.

        With a base, its name and its tokenizer are written too. The same adapter gives the same bytes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if base is not None:
            base.copy_tokenizer(folder)
        if self._peft is None:
            tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in self.named_parameters()}
            save_file(tensors, folder / FULL_WEIGHTS)
            return
        from peft import get_peft_model_state_dict

        with self.as_saved():
            state = get_peft_model_state_dict(self._peft, save_embedding_layers=False)
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        self._configuration(base).save_pretrained(str(folder))

    def _configuration(self, base: BaseReference | None) -> Any:
        """PEFT's configuration of what is saved."""
        config = copy.copy(self._peft.peft_config["default"])
        config.inference_mode = True
        config.target_modules = sorted(config.target_modules)  # a set, which is written in another order each time
        if base is not None:
            config.base_model_name_or_path, config.revision = base.name_or_path, base.revision
        if self._pissa:
            config.init_lora_weights = True
            config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
        return config

    def detach(self) -> None:
        """Take the adapter off; the base is as before."""
        for layer in self._pissa:
            layer.put(*layer.factors, layer.published)
        self._pissa = []
        if self._peft is not None:
            self.base.model = self._peft.unload()
            self._peft = None
        for name, parameter in self.base.model.named_parameters():
            parameter.grad = None
            if name in self._saved:
                parameter.data = parameter.data.to(self._saved[name].dtype).copy_(self._saved[name])
        self._saved = {}
        self.base.dropout_modules = []
        self.base.model.requires_grad_(False)
        self.base.choose_path()


def attach(base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
    """Attach a fresh adapter whose initial weights depend on settings and seed alone.

    Raises ConfigError where target modules or rank do not fit the model, ModelError where PEFT attached something else;
    the base is then as before.
    """
    adapter = Adapter(base, settings)
    if settings.method == "full":
        adapter._saved = {name: weight.detach().clone() for name, weight in base.model.named_parameters()}
        for weight in base.model.parameters():
            weight.data = weight.data.float()
        base.model.requires_grad_(True)
        base.choose_path()
        return adapter
    from peft import LoraConfig, get_peft_model

    shape = LoadedLinears(base.model)
    targets = resolve_targets(shape, settings)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha_value,
        lora_dropout=settings.dropout,
        target_modules=targets,
        use_rslora=settings.method == "rslora",
        use_dora=settings.method == "dora",
        init_lora_weights="pissa" if settings.method == "pissa" else True,
        fan_in_fan_out=shape.transposed,
        task_type="CAUSAL_LM",
    )
    published = {path: base.model.get_submodule(path).weight.data for path in targets}
    torch.manual_seed(seed)
    try:
        with without_deprecations():
            adapter._peft = get_peft_model(base.model, config, autocast_adapter_dtype=True)
        base.model.eval()
        if settings.method == "pissa":
            adapter._pissa = [PissaLayer.of(base.model.get_submodule(path), published[path]) for path in targets]
        adapter.require_as_planned(targets, count_trainable(shape, settings, targets))
    except BaseException:
        _take_off(base.model, published)
        raise
    if settings.dropout:
        base.dropout_modules = [module for name, module in base.model.named_modules() if "lora_dropout" in name]
    base.choose_path()
    return adapter


def _take_off(model: Any, published: Mapping[str, torch.Tensor]) -> None:
    """Undo an attachment that may be half done: later runs use the same base."""
    for path, weight in published.items():
        module = model.get_submodule(path)
        if hasattr(module, "get_base_layer"):
            module = module.get_base_layer()
            model.set_submodule(path, module)
        module.weight.data = weight
    if hasattr(model, "peft_config"):
        del model.peft_config
    model.requires_grad_(False)
