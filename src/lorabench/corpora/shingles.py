"""What documents are compared by: their shingles, less the boilerplate that many documents of a corpus share.

A shingle is three words in a row, words being runs of letters and digits, without case. Text without spaces (Chinese,
encoded data) is read by characters instead. Boilerplate is what stands word for word in many documents: a system
prompt, a licence header, a footer. That two documents share it says nothing about the rest of them.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt

from lorabench.corpora.documents import Document

SHINGLE_WORDS = 3
MAX_CHARACTERS_PER_WORD = 20
"""Longer on average, and it is not text that spaces divide into words."""
BOILERPLATE_SHARE = 0.05
"""A passage is boilerplate if it stands in at least this share of the documents,"""
MIN_BOILERPLATE_DOCUMENTS = 5
"""in at least so many,"""
MIN_BOILERPLATE_SHINGLES = 10
"""and is at least so many shingles (twelve words) long: shorter ones are turns of phrase."""
MIN_OWN_WORDS = 4
"""What is left of a document is its own text if its pieces are so long on average; shorter ones are scattered edits."""

_SAMPLE_DOCUMENTS = 1_000
_SAMPLE_CHARACTERS = 4_000_000
_WORD = re.compile(r"\w+")

Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Boilerplate:
    """Shingles, as sorted hashes, that many documents of a corpus share."""

    passages: Hashes = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    """Of the long passages: a document that has some of these has boilerplate."""
    all: Hashes = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    """Those, and shorter pieces that stand in half as many documents as the most frequent passage: labels of a form."""


class Shingler:
    """Turns documents into sets of shingle hashes. Words are numbered as they are met, so results are reproducible."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str, int] = defaultdict(count(1 << 32).__next__)
        self.boilerplate = Boilerplate()

    @classmethod
    def of_corpus(cls, documents: Iterable[Document]) -> Shingler:
        """A shingler that knows the corpus's boilerplate, which depends neither on the order nor on the splits."""
        shingler = cls()
        shingler.boilerplate = _find_boilerplate([shingler._hashes(d.text) for d in _sample(documents)])
        return shingler if len(shingler.boilerplate.passages) else cls()

    def shingles(self, text: str) -> Hashes:
        """Sorted distinct hashes of the shingles of the text's own part; none of a text that is shorter than one.

        A text that is all boilerplate, or boilerplate with scattered edits, has no own part and is taken whole: it is
        a copy of the others that are so.
        """
        hashes = self._hashes(text)
        if _contains(self.boilerplate.passages, hashes).any():
            common = _contains(self.boilerplate.all, hashes)
            if _has_own_text(common):
                hashes = hashes[~common]
        return np.unique(hashes)

    def _hashes(self, text: str) -> Hashes:
        """One per shingle, in the order of the text."""
        units = mix(self._units(text))
        hashes = np.zeros(max(0, len(units) - SHINGLE_WORDS + 1), dtype=np.uint64)
        for offset in range(SHINGLE_WORDS):
            hashes = hashes * np.uint64(0x100000001B3) + units[offset : offset + len(hashes)]
        return mix(hashes)

    def _units(self, text: str) -> Hashes:
        words = _WORD.findall(text.lower())
        if words and len(text) <= MAX_CHARACTERS_PER_WORD * len(words):
            return np.fromiter(map(self._numbers.__getitem__, words), dtype=np.uint64, count=len(words))
        characters = "".join(text.lower().split())
        return np.frombuffer(characters.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)


def _sample(documents: Iterable[Document]) -> list[Document]:
    """Enough documents to know what many share, drawn by the end of their hash: its beginning decides the split."""
    chosen: list[Document] = []
    characters = 0
    for document in heapq.nsmallest(_SAMPLE_DOCUMENTS, documents, key=lambda document: document.hash[::-1]):
        characters += len(document.text)
        if chosen and characters > _SAMPLE_CHARACTERS:
            break
        chosen.append(document)
    return chosen


def _find_boilerplate(texts: Sequence[Hashes]) -> Boilerplate:
    least = max(MIN_BOILERPLATE_DOCUMENTS, math.ceil(BOILERPLATE_SHARE * len(texts)))
    common, common_counts = _in_many(texts, least)
    passages, counts = _in_many([hashes[_in_long_runs(_contains(common, hashes))] for hashes in texts], least)
    if not len(passages):
        return Boilerplate()
    beside = common[common_counts >= counts.max() / 2]
    return Boilerplate(passages, np.union1d(passages, beside))


def _in_many(texts: Sequence[Hashes], least: int) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """The hashes that at least so many of the texts have, sorted, and how many have each."""
    every = np.concatenate([np.zeros(0, dtype=np.uint64), *map(np.unique, texts)])
    hashes, counts = np.unique(every, return_counts=True)
    return hashes[counts >= least], counts[counts >= least]


def _in_long_runs(common: Flags) -> Flags:
    """Which of the flags stand in runs of at least `MIN_BOILERPLATE_SHINGLES`."""
    starts, ends = _runs(common)
    is_long = ends - starts >= MIN_BOILERPLATE_SHINGLES
    marks = np.zeros(len(common) + 1, dtype=np.int64)
    marks[starts[is_long]] += 1
    marks[ends[is_long]] -= 1
    return np.cumsum(marks[:-1]) > 0


def _has_own_text(common: Flags) -> bool:
    """Whether the words that no common shingle covers stand in pieces, rather than one by one as edits do."""
    own = np.ones(len(common) + SHINGLE_WORDS - 1, dtype=np.bool_)
    for offset in range(SHINGLE_WORDS):
        own[offset : offset + len(common)] &= ~common
    num_pieces = len(_runs(own)[0])
    return 0 < MIN_OWN_WORDS * num_pieces <= int(own.sum())


def _runs(flags: Flags) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First places of the runs of true flags, and the places after their ends."""
    steps = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def _contains(ordered: Hashes, values: Hashes) -> Flags:
    """Which of the values are among the sorted ones."""
    if not len(ordered):
        return np.zeros(len(values), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[places] == values)


def mix(values: Hashes) -> Hashes:
    """The finalizer of the SplitMix64 generator: spreads every bit over all others."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
