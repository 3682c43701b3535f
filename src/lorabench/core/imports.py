"""Imports of large libraries."""

from __future__ import annotations

import gc
import importlib
import sys


def import_at_once(*names: str) -> None:
    """Import modules without looking for garbage meanwhile. Raises ImportError.

    What imports make stays, and is much: Python would go through all of it again and again, for a seventh of the time.
    """
    if all(name in sys.modules for name in names):
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for name in names:
            importlib.import_module(name)
    finally:
        if was_enabled:
            gc.enable()
