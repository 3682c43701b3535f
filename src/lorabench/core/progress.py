"""Protocols by which long work reports its progress to whatever displays it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with what is being done, how much of it is done, and how much there is in all (None: unknown)."""

    def __call__(self, description: str, done: float, total: float | None, /) -> None:
        """Costs microseconds, and may be called from any thread."""


class View(Protocol):
    """Who shows work to people, on a terminal or elsewhere."""

    def message(self, text: str, /) -> None:
        """One sentence that stays."""

    def phase(self, name: str, total: float | None = None, unit: str = "") -> object:
        """What is done now, and how much of it there is."""

    def progress(self, description: str, done: float, total: float | None, /) -> None:
        """See Progress."""
