"""The methods by name: every file of this package with a `METHOD`, those of plugins, and what code adds."""

from __future__ import annotations

from lorabench.core.registry import Registry
from lorabench.methods.method import Method
from lorabench.methods.settings import AdapterSettings

METHODS: Registry[Method] = Registry("lorabench.methods", "METHOD", "method")


def method_of(settings: AdapterSettings) -> Method:
    """The method that these settings are for. Raises ConfigError where there is none of that name."""
    return METHODS.get(settings.method)
