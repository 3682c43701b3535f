"""An adapter of any of PEFT's kinds: its own forward pass computes it, and the base is put back as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lorabench.core.errors import ModelError
from lorabench.methods.peft_adapter import SavedByPeft, explained, without_warnings
from lorabench.methods.settings import AdapterSettings

if TYPE_CHECKING:
    from torch import nn

    from lorabench.models.base import FrozenBase


class AnyPeftAdapter(SavedByPeft):
    """PEFT's model around the base."""

    def __init__(
        self, base: FrozenBase, settings: AdapterSettings, config: Any, *, seed: int, planned: tuple[list[str], int]
    ) -> None:
        """Attach it. `planned` are the full paths of the modules that carry it, and the trainable parameters.

        Raises ModelError where PEFT attaches something else, or changes the base's weights; the base is then as before.
        """
        import torch
        from peft import get_peft_model

        super().__init__(base, settings)
        self._before = Structure(base.model)
        torch.manual_seed(seed)
        try:
            with without_warnings(), explained():
                self._peft = get_peft_model(base.model, config, autocast_adapter_dtype=True)
            self._peft.eval()
            base.model = self._peft
            self.prepare()
            self.require_as_planned(*planned)
            if self._before.weights_changed():
                raise ModelError(
                    f"adapter.method {settings.method}: this start changes the base's own weights, so that what is "
                    "saved would not be an adapter of the published base; pissa and olora are methods of their own"
                )
        except BaseException:
            self._take_off()
            base.has_wide_parts = False
            base.choose_path()
            raise
        for parameter in self.parameters:
            parameter.data = parameter.data.float()
        _keep_types(self._peft)
        base.dropout_modules = [
            module for module in self._peft.modules() if isinstance(module, torch.nn.Dropout) and module.p > 0
        ]
        base.choose_path()

    def prepare(self) -> None:
        """Called once, when PEFT's modules are there: choose what is trained."""

    def _take_off(self) -> None:
        self.base.model = self._before.restore()


def _keep_types(model: Any) -> None:
    """On layers of bitsandbytes some of PEFT's give float32 whatever comes in, which a head in bfloat16 refuses."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and "bitsandbytes" in type(module.get_base_layer()).__module__:
            module.register_forward_hook(lambda _, inputs, outputs: outputs.to(inputs[0].dtype))


class Structure:
    """A model's modules, parameters and attributes as they are, to be put back after others were put in their place."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._modules = [
            (module, dict(module._modules), dict(module._parameters), set(vars(module))) for module in model.modules()
        ]
        self._weights: list[tuple[nn.Parameter, Any]] = [(weight, weight.data) for weight in model.parameters()]

    def weights_changed(self) -> bool:
        """Whether a weight is another tensor than before."""
        return any(weight.data.data_ptr() != data.data_ptr() for weight, data in self._weights)

    def restore(self) -> Any:
        """The model as it was."""
        for module, children, parameters, attributes in self._modules:
            module._modules.clear()
            module._modules.update(children)
            module._parameters.clear()
            module._parameters.update(parameters)
            for name in set(vars(module)) - attributes:
                delattr(module, name)
        for weight, data in self._weights:
            weight.data = data
        self._model.requires_grad_(False).eval()
        return self._model
