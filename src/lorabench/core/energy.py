"""The energy that the processor took, where Linux lets it be read (RAPL: Intel's and AMD's own counters)."""

from __future__ import annotations

import re
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"intel-rapl:\d+")
"""A whole processor; what follows a second colon is a part of it. AMD's have the same name."""


class ProcessorEnergy:
    """Counts from when it was made, over all processors, whoever uses them."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._folder = folder
        self._start = self._read()

    def joules(self) -> float | None:
        """So far; None where the counters are not there, or are not for this user to read."""
        now = self._read()
        if not now or now.keys() != self._start.keys():
            return None
        try:
            used = [_difference(path, before, now[path]) for path, before in self._start.items()]
        except (OSError, ValueError):
            return None
        return sum(used) * 1e-6

    def _read(self) -> dict[Path, int]:
        """Microjoules of each processor."""
        try:
            packages = [path for path in self._folder.iterdir() if _PACKAGE.fullmatch(path.name)]
            return {path: int((path / "energy_uj").read_text()) for path in packages}
        except (OSError, ValueError):
            return {}


def _difference(package: Path, before: int, now: int) -> int:
    """Microjoules; a counter that came to its end began anew."""
    if now >= before:
        return now - before
    return now - before + int((package / "max_energy_range_uj").read_text())
