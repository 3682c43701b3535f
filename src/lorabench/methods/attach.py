"""Attaches a fresh adapter of any method to the frozen base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorabench.methods.adapter import Adapter
from lorabench.methods.registry import method_of
from lorabench.methods.settings import AdapterSettings

if TYPE_CHECKING:
    from lorabench.models.base import FrozenBase


def attach(base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
    """Attach a fresh adapter whose initial weights depend on settings and seed alone.

    Raises ConfigError where target modules or rank do not fit the model, ModelError where what was attached is not what
    a plan would say; the base is then as before.
    """
    return method_of(settings).attach(base, settings, seed=seed)
