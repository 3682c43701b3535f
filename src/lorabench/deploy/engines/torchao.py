"""Transformers with linear layers that torchao quantises once the model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lorabench.core.errors import InputError, require_package
from lorabench.deploy.engine import Source
from lorabench.deploy.engines.transformers import TransformersEngine, load_form

if TYPE_CHECKING:
    from lorabench.models.base import FrozenBase

CONFIGURATIONS = {
    "int8": "Int8WeightOnlyConfig",
    "int4": "Int4WeightOnlyConfig",
    "fp8": "Float8WeightOnlyConfig",
}
"""torchao's own, by the form's type."""


class TorchaoEngine(TransformersEngine):
    """See Engine."""

    packages = (*TransformersEngine.packages, "torchao")

    def require(self) -> None:
        """Raises MissingExtraError where torchao is not installed."""
        require_package("torchao", "a model quantised by torchao", "torchao")

    def check_device(self, device: str) -> None:
        """Raises InputError for a processor."""
        if device == "cpu":
            raise InputError(
                "--device cpu: torchao's forms are for GPUs; give --device cuda, or a form of gguf or onnx"
            )

    def prepare(self) -> None:
        """See Engine."""
        self.require()
        super().prepare()
        import torchao.quantization

        assert torchao.quantization

    def load(self, source: Source) -> FrozenBase:
        """See TransformersEngine; quantised in place, layer by layer."""
        base = load_form(source, "bf16")
        quantise(base.model, source.form.partition(":")[2])
        base.use_reference_path("linear layers are quantised by torchao")
        return base


def quantise(model: Any, kind: str) -> None:
    """Every linear layer but the head, in place."""
    import torch
    import torchao.quantization

    head = model.get_output_embeddings()

    def is_wanted(module: torch.nn.Module, name: str) -> bool:
        return isinstance(module, torch.nn.Linear) and module is not head

    torchao.quantization.quantize_(model, getattr(torchao.quantization, CONFIGURATIONS[kind])(), is_wanted)


ENGINE = TorchaoEngine()
