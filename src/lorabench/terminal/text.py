"""Text for a terminal: numbers people read, and foreign text that can neither colour, move nor clear anything."""

from __future__ import annotations

import math
import sys
import unicodedata
from typing import TextIO

from rich.console import Console
from rich.text import Text

_BARS = "▁▂▃▄▅▆▇█"


def make_console(stream: TextIO | None = None) -> Console:
    """A console for `stream` (default: standard output) that never fails on a character its encoding lacks."""
    stream = sys.stdout if stream is None else stream
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def clean(value: object, max_length: int | None = None) -> str:
    """One line of text: control and direction characters are shown as escapes, the middle is left out if too long."""
    text = "".join(_visible(character) for character in str(value))
    if max_length is None or len(text) <= max_length:
        return text
    tail = max(1, max_length // 3)
    return f"{text[: max(1, max_length - tail - 1)]}…{text[-tail:]}"


def _visible(character: str) -> str:
    if character in "\n\r\t":
        return " "
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return character.encode("unicode_escape", errors="backslashreplace").decode("ascii")
    return character


def styled(value: object, style: str = "", max_length: int | None = None) -> Text:
    """`clean` text in a style; markup in it stays text."""
    return Text(clean(value, max_length), style=style)


def duration(seconds: float) -> str:
    """Seconds as `41 s`, `4 min`, `1 h 05 min` or `3 d 2 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def number(value: float | None, digits: int = 4) -> str:
    """A figure with so many significant digits, or a dash where there is none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "∞"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 12)}f}"


def bits(value: float | None) -> str:
    """Bits per byte, always with four decimals, so that columns can be compared; a dash where there is none."""
    return "–" if value is None else f"{value:,.4f}"


def percent(change: float) -> str:
    """A relative change, with its sign: `−3.2 %`."""
    return f"{'−' if change < 0 else '+'}{abs(change) * 100:.1f} %"


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
