"""How much of a text stands word for word in another one: held-out text that follows a template is half known."""

from __future__ import annotations

from collections.abc import Iterable

SEQUENCE_WORDS = 8
"""Natural prose hardly ever repeats so many words; forms, signatures and boilerplate do."""


def share_seen(held_out: Iterable[str], training: Iterable[str], num_words: int = SEQUENCE_WORDS) -> float | None:
    """Share of the held-out texts' sequences of `num_words` words that occur in the training texts, 0 to 1.

    Sequences lie within one text each; words are what stands between white space, whatever its case. None where no
    held-out text has so many words. Takes time in proportion to both, and memory in proportion to the held-out text.
    """
    sought: dict[int, int] = {}
    for text in held_out:
        for sequence in _sequences(text, num_words):
            sought[sequence] = sought.get(sequence, 0) + 1
    if not sought:
        return None
    found = {sequence for text in training for sequence in _sequences(text, num_words) if sequence in sought}
    return sum(sought[sequence] for sequence in found) / sum(sought.values())


def _sequences(text: str, num_words: int) -> Iterable[int]:
    """Hashes of the text's sequences: two that are alike have one, two that differ hardly ever."""
    words = text.casefold().split()
    return map(hash, zip(*(words[start:] for start in range(num_words)), strict=False))
