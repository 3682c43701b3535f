"""The sections of the report. Each file here is one; a new file with a `SECTION` is found without being named."""

from __future__ import annotations

from lorabench.core.registry import Registry
from lorabench.report.section import Section

SECTIONS: Registry[Section] = Registry(__name__, "SECTION", "section")
