"""Draws a budget's worth of rows from a window of several times as many, by a hash of their text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lorabench.corpora.conversations import Row

WINDOW_FACTOR = 4
"""Bytes of text read per byte of budget."""
HELD_OUT_BYTES = 8_000_000
"""Budget for a source's own validation and test splits, which are only scored."""


def draw(rows: Sequence[Row], budget: int | None) -> list[Row]:
    """Whole rows, in the order of a hash of their text, until `budget` bytes are reached; None: all, in their order.

    The hash is not the one that splits a corpus, so that drawing favours no split.
    """
    return list(rows) if budget is None else draw_and_rest(rows, budget)[0]


def draw_and_rest(rows: Sequence[Row], budget: int) -> tuple[list[Row], list[Row]]:
    """What `draw` draws, and the other rows."""
    ordered = sorted(rows, key=lambda row: _draw_key(text_of(row)))
    taken = 0
    for place, row in enumerate(ordered):
        taken += num_bytes(row)
        if taken >= budget:
            return ordered[: place + 1], ordered[place + 1 :]
    return ordered, []


def text_of(row: Row) -> str:
    """A text itself, or all that is said in a conversation."""
    return row if isinstance(row, str) else "\n\n".join(turn.content for turn in row)


def num_bytes(row: Row) -> int:
    """Of its text in UTF-8."""
    return len(text_of(row).encode("utf-8", errors="surrogatepass"))


def _draw_key(text: str) -> bytes:
    return hashlib.blake2b(
        text.encode("utf-8", errors="surrogatepass"), digest_size=16, person=b"lorabench draw"
    ).digest()
