"""How numbers and foreign text are written: the same figure looks the same on the page, in files and in terminals."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lorabench.core.errors import InputError

NONE = "–"
MAX_DECIMALS = 4
"""Of bits per byte."""
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


def with_interval(interval: Estimated, *, is_signed: bool = False) -> tuple[str, str]:
    """The figure and its interval, `0.93` and `0.89 to 0.98`, to the digits that the interval supports.

    Half the interval has two significant digits where it starts with 1, 2 or 3, else one; an interval that leaves out
    zero is shown to leave it out. Without an interval the figure has four decimals and its note stands instead.
    """
    sign = "+" if is_signed else ""
    if interval.low is None or interval.high is None:
        missing = f"no interval: {interval.note}" if interval.note else "no interval"
        return _decimal(interval.estimate, MAX_DECIMALS, sign), missing
    decimals = decimals_of((interval.high - interval.low) / 2.0)
    if interval.low > 0 or interval.high < 0:
        nearest = min(abs(interval.low), abs(interval.high))
        while decimals < MAX_DECIMALS + 2 and round(nearest, decimals) == 0:
            decimals += 1
    figure, low, high = (_decimal(value, decimals, sign) for value in (interval.estimate, interval.low, interval.high))
    return figure, f"{low} to {high}"


def decimals_of(half_width: float) -> int:
    """Decimals that so wide an interval supports, at most four."""
    if not 0.0 < half_width < math.inf:
        return MAX_DECIMALS
    return max(0, min(MAX_DECIMALS, -math.floor(math.log10(half_width / 3.5))))


def _decimal(value: float, decimals: int, sign: str = "") -> str:
    text = f"{value:{sign}.{decimals}f}"
    return text.replace("-", "−") if any(digit in "123456789" for digit in text) else text.lstrip("+-")


def figure(interval: Estimated | None, *, is_signed: bool = False) -> str:
    """The figure alone, to the digits that its interval supports."""
    return NONE if interval is None else with_interval(interval, is_signed=is_signed)[0]


def span(interval: Estimated | None, *, is_signed: bool = False) -> str:
    """The interval's ends; what its note says where it has none."""
    return NONE if interval is None else with_interval(interval, is_signed=is_signed)[1]


def cost(value: float) -> str:
    """What a choice costs at most: two significant digits, `0.020`."""
    return "0.0001" if value < 1e-4 else number(float(f"{value:.1e}"), 2)


def alike(value: float | None, interval: Estimated | None) -> str:
    """Another figure, such as that of the base, to the digits of the interval that it stands beside."""
    if value is None or interval is None or interval.low is None or interval.high is None:
        return bits(value)
    return _decimal(value, decimals_of((interval.high - interval.low) / 2.0))


def figure_and_span(interval: Estimated | None, *, is_signed: bool = False) -> str:
    """`0.93 (0.89 to 0.98)`."""
    return NONE if interval is None else "{} ({})".format(*with_interval(interval, is_signed=is_signed))


def percent(share: float | None) -> str:
    """A relative change with its sign, `−3.2 %`."""
    return NONE if share is None else f"{share * 100:+.1f}\u00a0%".replace("-", "−")


def relative_gain(gain: Estimated | None, figure: Estimated | None) -> str:
    """The gain as a share of the base, which is what was reached and what was gained together: `−17 %`."""
    if gain is None or figure is None or figure.estimate + gain.estimate <= 0:
        return NONE
    share = 100.0 / (figure.estimate + gain.estimate)
    decimals = 1
    if gain.low is not None and gain.high is not None:
        decimals = min(1, decimals_of((gain.high - gain.low) / 2.0 * share))
    return f"{_decimal(-gain.estimate * share, decimals, '+')}\u00a0%"


def percent_and_span(change: Estimated, base: float, *, is_signed: bool = False) -> str:
    """A change as a share of what it changes, with its interval: `25 % (21 to 29)`; nothing where that is 0."""
    if not base:
        return NONE
    sign, share = "+" if is_signed else "", 100.0 / base
    if change.low is None or change.high is None:
        return f"{_decimal(change.estimate * share, 1, sign)}\u00a0% (no interval)"
    decimals = min(1, decimals_of((change.high - change.low) / 2.0 * share))
    middle, low, high = (_decimal(end * share, decimals, sign) for end in (change.estimate, change.low, change.high))
    return f"{middle}\u00a0% ({low} to {high})"


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


def documents(number_of: int, effective: float | None) -> str:
    """`62 documents`; where they weigh like fewer of one length, `62 documents (effectively 16)`."""
    shown = f"{count(number_of)} document{'s' if number_of != 1 else ''}"
    if effective is None or round(effective) >= number_of:
        return shown
    return f"{shown} (effectively {number(effective, 2) if effective < 10 else count(effective)})"


def setting(value: str | int | float | Mapping[str, Any] | None) -> str:
    """The value of a setting as people write it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {setting(part)}" for name, part in value.items()) + "}"
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


def plural(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count:,} {noun}" + "s" * (count != 1)


def training(num_bytes: float, epochs: int, steps: int, seconds: float | None) -> str:
    """How much training something was: `9 steps (4.0 kB, 1 epoch, 16 s)`."""
    took = "" if seconds is None else f", {duration(seconds)}"
    return f"{plural(steps, 'step')} ({size(num_bytes)}, {plural(epochs, 'epoch')}{took})"


def listed(names: Sequence[str], most: int = 4) -> str:
    """`a, b and c`; of more than `most`, the first ones and how many more there are."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def parse_size(text: str, name: str) -> float:
    """Bytes of `800MB`, `2 GB` or `1e9`. Raises InputError, in which the option is called `name`."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kMGT]?)i?B?\s*", text, re.IGNORECASE)
    try:
        value = float(match[1]) if match else math.nan
    except ValueError:
        value = math.nan
    if match is None or not 0 < value < math.inf:
        raise InputError(f"{name}: {text[:40]!r} is not accepted; a size is expected, such as 800MB or 2GB")
    return value * 1000.0 ** " kmgt".index(match[2].lower() or " ")
