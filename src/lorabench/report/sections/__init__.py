"""The sections of the report. Each file here is one; a new file with a `SECTION` is found without being named."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from lorabench.report.section import Section


@cache
def all_sections() -> tuple[Section, ...]:
    """Those of every file in this folder."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}").SECTION for name in names)
