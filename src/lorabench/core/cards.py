"""Cards that plans can be made for without having one: rates and sizes as their makers publish them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from lorabench.core.device import Device
from lorabench.core.errors import InputError, near_matches

MOST_DEVICES = 100_000
_SPELLING = re.compile(r"(?:(\d{1,9})\s*x\s*)?([A-Za-z][\w. -]{0,39})", re.ASCII)


@dataclass(frozen=True)
class Card:
    """Rates are of dense products, in operations per second; one multiply-add is two. 0: it has no units for them."""

    name: str
    bf16_rate: float
    fp32_rate: float
    """Without TF32, which is never on."""
    memory_bytes: int
    bytes_per_second: float
    """Between the card's memory and its processors."""
    fp16_rate: float

    @property
    def device(self) -> Device:
        """As plans know a device."""
        return Device("cuda", self.name, self.memory_bytes, self.bf16_rate > 0)


def _card(
    name: str, bf16: float, fp32: float, memory_gb: int, terabytes_per_second: float, fp16: float | None = None
) -> Card:
    """From a data sheet: TFLOP/s, GB and TB/s; float16 is as fast as bfloat16 where there are units for both."""
    half = bf16 if fp16 is None else fp16
    return Card(name, bf16 * 1e12, fp32 * 1e12, memory_gb * 10**9, terabytes_per_second * 1e12, half * 1e12)


CARDS = {
    card.name: card
    for card in (
        _card("B200", 2250, 75, 180, 8.0),
        _card("H200", 989, 67, 141, 4.8),
        _card("H100", 989, 67, 80, 3.35),
        _card("A100-80GB", 312, 19.5, 80, 2.04),
        _card("A100-40GB", 312, 19.5, 40, 1.56),
        _card("L40S", 362, 91.6, 48, 0.864),
        _card("A6000", 155, 38.7, 48, 0.768),
        _card("RTX4090", 165, 82.6, 24, 1.008),
        _card("RTX3090", 71, 35.6, 24, 0.936),
        _card("A10", 125, 31.2, 24, 0.6),
        _card("L4", 121, 30.3, 24, 0.3),
        _card("V100", 0, 15.7, 32, 0.9, fp16=125),
        _card("T4", 0, 8.1, 16, 0.32, fp16=65),
    )
}
"""By name; the makers' data sheets, of the SXM form where there are several."""


def find_card(name: str) -> Card | None:
    """The card that a driver calls `name`, such as `NVIDIA A100-SXM4-80GB`; None for others and parts of one."""
    words = re.split(r"[^A-Z0-9]+", name.upper())
    if {"MIG", "LAPTOP"} & set(words):
        return None
    said = {*words, *map("".join, pairwise(words))}
    return next((card for card in CARDS.values() if said.issuperset(card.name.upper().split("-"))), None)


def parse_devices_elsewhere(text: str) -> tuple[int, Card]:
    """How many of which card `8xH100` means; `H100` is one. Raises InputError with what is accepted."""
    found = _SPELLING.fullmatch(text.strip())
    name = "" if found is None else re.sub(r"[ _]", "", found[2]).upper()
    card = next((card for card in CARDS.values() if card.name.upper() == name), None)
    if found is None or card is None:
        raise InputError(
            f"--on {text[:80]!r} is not accepted; a number and a card are expected, such as 8xH100, with one of "
            f"{', '.join(CARDS)}.{near_matches(name.lower(), [known.lower() for known in CARDS])}"
        )
    count = int(found[1] or 1)
    if not 1 <= count <= MOST_DEVICES:
        raise InputError(f"--on {text}: {count} devices are not accepted; give 1 to {MOST_DEVICES:,}")
    return count, card
