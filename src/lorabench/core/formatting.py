"""How numbers and foreign text are written: the same figure looks the same on the page, in files and in terminals."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Protocol

NONE = "–"
MAX_PROBLEMS = 8
"""Shown in summary, page and terminal."""


class Estimated(Protocol):
    """An estimate and its interval, as the analysis has them."""

    @property
    def estimate(self) -> float:
        """The figure."""

    @property
    def low(self) -> float | None:
        """The lower end; None, with `high`, where there is no interval."""

    @property
    def high(self) -> float | None:
        """The upper end."""

    @property
    def note(self) -> str:
        """Why there is no interval, or what limits it."""


def bits(value: float | None) -> str:
    """Bits per byte, always with four decimals."""
    return NONE if value is None else f"{value:.4f}".replace("-", "−")


def signed_bits(value: float | None) -> str:
    """A difference in bits per byte, with its sign."""
    return NONE if value is None else f"{value:+.4f}".replace("-", "−")


def span(interval: Estimated | None, *, is_signed: bool = False) -> str:
    """The interval's ends, `0.9050 to 0.9190`; what its note says where it has none."""
    if interval is None:
        return NONE
    write = signed_bits if is_signed else bits
    if interval.low is None or interval.high is None:
        return f"no interval: {interval.note}" if interval.note else "no interval"
    return f"{write(interval.low)} to {write(interval.high)}"


def percent(share: float | None) -> str:
    """A relative change with its sign, `−3.2 %`."""
    return NONE if share is None else f"{share * 100:+.1f}\u00a0%".replace("-", "−")


def relative_gain(gain: Estimated | None, figure: Estimated | None) -> str:
    """The gain as a share of the base, which is what was reached and what was gained together."""
    if gain is None or figure is None or figure.estimate + gain.estimate <= 0:
        return NONE
    return percent(-gain.estimate / (figure.estimate + gain.estimate))


def number(value: float | None, digits: int = 4) -> str:
    """So many significant digits, thousands apart."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return "∞"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 12)}f}".replace("-", "−")


def count(value: float | None) -> str:
    """A whole number, thousands apart."""
    return NONE if value is None else f"{value:,.0f}"


def setting(value: str | int | float | None) -> str:
    """The value of a setting as people write it."""
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else value


def millions(value: float | None) -> str:
    """A number of parameters, `135 M`."""
    return NONE if value is None else f"{number(value / 1e6, 3)} M"


def size(num_bytes: float | None) -> str:
    """Bytes as `812 kB`, `14.2 MB` or `1.46 GB`."""
    if num_bytes is None:
        return NONE
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{number(num_bytes / factor, 3)} {unit}"
    return f"{num_bytes:,.0f} bytes"


def rough_size(num_bytes: float) -> str:
    """An estimate: 1,234,567 bytes as `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


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


def shorten(text: str, max_length: int) -> str:
    """`text` on one line, its middle left out where it is too long for an axis."""
    text = " ".join(text.split())
    if len(text) <= max_length:
        return text
    tail = max_length // 3
    return f"{text[: max_length - tail - 1]}…{text[-tail:]}"


def visible(character: str) -> str:
    """The character on one line; control and direction characters as escapes."""
    if character in "\n\r\t":
        return " "
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return character.encode("unicode_escape", errors="backslashreplace").decode("ascii")
    return character


def first_of(problems: Sequence[str], most: int = MAX_PROBLEMS) -> list[str]:
    """The first problems and how many more there are: hundreds of them would bury what a report says."""
    if len(problems) <= most:
        return list(problems)
    return [*problems[:most], f"… and {len(problems) - most:,} more; lorabench report prints them all"]
