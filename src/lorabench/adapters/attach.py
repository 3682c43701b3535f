"""Attaches a fresh adapter to the frozen base and takes it off again, leaving the base as it was, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from lorabench.adapters.saved import FULL_WEIGHTS, without_deprecations
from lorabench.adapters.targets import resolve_targets
from lorabench.config import AdapterSettings
from lorabench.models.base import FrozenBase


class Adapter:
    """What is trained on a base: PEFT's modules, or every weight for `full`."""

    def __init__(self, base: FrozenBase, settings: AdapterSettings) -> None:
        self.base = base
        self.settings = settings
        self.module_names: list[str] = []
        self._peft: Any = None
        self._saved: dict[str, torch.Tensor] = {}

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

    def save(self, folder: Path) -> None:
        """Write PEFT's `adapter_config.json` and `adapter_model.safetensors`; all weights for `full`."""
        folder.mkdir(parents=True, exist_ok=True)
        if self._peft is not None:
            self._peft.save_pretrained(folder, safe_serialization=True)
            (folder / "README.md").unlink(missing_ok=True)
            return
        tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in self.named_parameters()}
        save_file(tensors, folder / FULL_WEIGHTS)

    def detach(self) -> None:
        """Take the adapter off; the base is as before."""
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

    Raises ConfigError where target modules or rank do not fit the model.
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

    shape = _LoadedShape(base.model)
    adapter.module_names = resolve_targets(shape, settings)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha_value,
        lora_dropout=settings.dropout,
        target_modules=adapter.module_names,
        use_rslora=settings.method == "rslora",
        use_dora=settings.method == "dora",
        init_lora_weights="pissa" if settings.method == "pissa" else True,
        fan_in_fan_out=shape.transposed,
        task_type="CAUSAL_LM",
    )
    if settings.method == "pissa":  # takes the adapter's product out of the weights
        weights = {f"{name}.weight" for name in adapter.module_names}
        adapter._saved = {
            name: weight.detach().clone() for name, weight in base.model.named_parameters() if name in weights
        }
    torch.manual_seed(seed)
    with without_deprecations():
        adapter._peft = get_peft_model(base.model, config, autocast_adapter_dtype=True)
    base.model.eval()
    if settings.dropout:
        base.dropout_modules = [module for name, module in base.model.named_modules() if "lora_dropout" in name]
    base.choose_path()
    return adapter


class _LoadedShape:
    """The linear layers of a loaded model."""

    def __init__(self, model: Any) -> None:
        from transformers.pytorch_utils import Conv1D

        head = model.get_output_embeddings()
        self.transposed = False
        self.linears: dict[str, tuple[int, int]] = {}
        for name, module in model.named_modules():
            if module is head:
                continue
            if isinstance(module, nn.Linear):
                self.linears[name] = (module.in_features, module.out_features)
            elif isinstance(module, Conv1D):
                self.transposed = True
                self.linears[name] = (module.weight.shape[0], module.weight.shape[1])
        self.num_parameters: int = sum(parameter.numel() for parameter in model.parameters())
        in_attention = [name for name in self.linears if "attn" in name or "attention" in name]
        self.attention_modules = sorted({name.rsplit(".", 1)[-1] for name in in_attention})
        self.mlp_modules = sorted({name.rsplit(".", 1)[-1] for name in self.linears} - set(self.attention_modules))
