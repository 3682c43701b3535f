"""How the page and the figures write numbers: the same figure looks the same everywhere."""

from __future__ import annotations

import math
from typing import Protocol

NONE = "–"


class Bounded(Protocol):
    """An estimate's interval, as the analysis has it."""

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


def span(interval: Bounded | None, *, is_signed: bool = False) -> str:
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


def shorten(text: str, max_length: int) -> str:
    """`text` on one line, its middle left out where it is too long for an axis."""
    text = " ".join(text.split())
    if len(text) <= max_length:
        return text
    tail = max_length // 3
    return f"{text[: max_length - tail - 1]}…{text[-tail:]}"
