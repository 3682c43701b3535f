"""Text for a terminal: numbers people read, and foreign text that can neither colour, move nor clear anything."""

from __future__ import annotations

import math
import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

from lorabench.core import formatting

_BARS = "▁▂▃▄▅▆▇█"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads any more: the rest is said to nobody. Rich's own console would end the process."""
        self.quiet = True


def make_console(stream: TextIO | None = None) -> Console:
    """A console for `stream` (default: standard output) that never fails on a character its encoding lacks."""
    stream = sys.stdout if stream is None else stream
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return _Console(file=stream, highlight=False, markup=False, emoji=False)


def clean(value: object, max_length: int | None = None) -> str:
    """One line of text: control and direction characters are shown as escapes, the middle is left out if too long."""
    text = "".join(formatting.visible(character) for character in str(value))
    if max_length is None or len(text) <= max_length:
        return text
    tail = max(1, max_length // 3)
    return f"{text[: max(1, max_length - tail - 1)]}…{text[-tail:]}"


def styled(value: object, style: str = "", max_length: int | None = None) -> Text:
    """`clean` text in a style; markup in it stays text."""
    return Text(clean(value, max_length), style=style)


def percent(change: float) -> str:
    """A relative change, with its sign: `−3.2 %`."""
    return formatting.percent(change).replace("\u00a0", " ")


def sparkline(values: list[float], width: int) -> str:
    """A curve in one line of at most `width` characters, each the mean of its share."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return ""
    width = min(width, len(values))
    shares = [values[i * len(values) // width : (i + 1) * len(values) // width] for i in range(width)]
    means = [sum(share) / len(share) for share in shares]
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join(_BARS[min(7, int((mean - low) / span * 8))] for mean in means)
