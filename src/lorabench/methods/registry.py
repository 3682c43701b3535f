"""The methods by name: every file of this package with a `METHOD`, those of plugins, and what code adds."""

from __future__ import annotations

from lorabench.core.errors import ConfigError
from lorabench.core.registry import Registry
from lorabench.methods.method import Method
from lorabench.methods.settings import AdapterSettings
from lorabench.models.quantized import Quantization

METHODS: Registry[Method] = Registry("lorabench.methods", "METHOD", "method")


def method_of(settings: AdapterSettings) -> Method:
    """The method that these settings are for. Raises ConfigError where there is none of that name."""
    return METHODS.get(settings.method)


def require_takes_base(settings: AdapterSettings, quantization: Quantization) -> None:
    """Raises ConfigError where the method needs weights as they are, which a quantised base has not, or needs such."""
    wanted = method_of(settings).quantizations
    if wanted and quantization not in wanted:
        raise ConfigError(
            f"base.quantization: {quantization} is not accepted with the method {settings.method}, which starts from "
            f"what quantising takes away; give {' or '.join(sorted(wanted))}"
        )
    if quantization != "none" and not method_of(settings).takes_quantized:
        able = ", ".join(name for name, method in METHODS.all().items() if method.takes_quantized)
        raise ConfigError(
            f"base.quantization: {quantization} is not accepted with the method {settings.method}, which needs the "
            f"base's weights as they are; give none, or one of the methods {able}"
        )


def require_takes_optimizer(settings: AdapterSettings, optimizer: str) -> None:
    """Raises ConfigError where what the optimizer leaves behind is not what the method has trained."""
    if optimizer in method_of(settings).refused_optimizers:
        raise ConfigError(
            f"training.optimizer: {optimizer} is not accepted with the method {settings.method}, whose steps end with "
            "changes that this optimizer does not keep; give another one, such as adamw"
        )
