"""Draws the text of a split that a budget in bytes pays for: pieces spread evenly over all of it.

Every byte has the same chance to be drawn, however long its document is. Which are follows from the split and the
budget alone, so that every model, tokenizer and context length is scored on the same text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorabench.corpora.budget import take_budget
from lorabench.corpora.documents import Document, make_document

SHORTEST_PIECE = 512
LONGEST_PIECE = 4096
PIECES_OF_A_BUDGET = 64
"""At least so many, where pieces need not be shorter than `SHORTEST_PIECE` for it."""

Span = tuple[int, int]
"""Beginning and end, in bytes of the document."""
Numbers = npt.NDArray[np.int64]
_BOUNDARIES = (re.compile(rb"\n"), re.compile(rb"\S(?=\s)"))
"""Ends of lines, else of words."""


@dataclass(frozen=True)
class DrawnText:
    """P pieces of D documents: each piece is scored as a text of its own, and results are summed by document."""

    pieces: list[Document]
    """[P], in the order of the documents and of the text."""
    owners: list[int]
    """[P], rising from 0 to D - 1: the document that a piece is of."""
    hashes: list[str]
    """[D], all different: of the document and the bytes drawn of it; of an uncut document its own."""
    document_bytes: list[int]
    """[D], of whole documents, whatever was drawn of them."""

    @classmethod
    def whole(cls, documents: Sequence[Document]) -> DrawnText:
        """All of these documents, uncut."""
        hashes = [document.hash for document in documents]
        sizes = [document.num_bytes for document in documents]
        return cls(list(documents), list(range(len(hashes))), hashes, sizes)


def take_text(documents: Sequence[Document], split: str, max_bytes: int | None) -> DrawnText:
    """What an experiment with such a budget takes of a split: whole documents to train on, else what `draw` draws.

    Without a budget, all of it.
    """
    if max_bytes is None:
        return DrawnText.whole(documents)
    return DrawnText.whole(take_budget(documents, max_bytes)) if split == "train" else draw(documents, max_bytes)


def piece_bytes(max_bytes: int) -> int:
    """The longest piece that a budget buys: shorter for small budgets, so that they see many places of the split."""
    return min(max_bytes, max(SHORTEST_PIECE, min(LONGEST_PIECE, max_bytes // PIECES_OF_A_BUDGET)))


def draw(documents: Sequence[Document], max_bytes: int) -> DrawnText:
    """A systematic sample of the documents' pieces, within the budget; where it pays for all of them, all, uncut.

    Documents longer than a piece are cut into pieces of nearly equal size. Only stretches of nothing but white space
    are never drawn. A conversation is one piece, whatever its size; where the budget pays for none, the shortest is
    taken.
    """
    if sum(document.num_bytes for document in documents) <= max_bytes:
        return DrawnText.whole(documents)
    cut = [_cut(document, piece_bytes(max_bytes)) for document in documents]
    owners = np.repeat(np.arange(len(cut)), [len(spans) for spans in cut])
    spans = [span for of_document in cut for span in of_document]
    sizes = np.array([end - start for start, end in spans], dtype=np.int64)
    chosen = _spread(sizes, max_bytes, _random_start(documents, max_bytes))
    if not chosen and documents[0].turns is not None:
        chosen = [int(sizes.argmin())]
    drawn: dict[int, list[Span]] = {}
    for index in chosen:
        drawn.setdefault(int(owners[index]), []).append(spans[index])
    return DrawnText(
        pieces=[piece for owner, of_it in drawn.items() for piece in _pieces(documents[owner], of_it)],
        owners=[number for number, of_it in enumerate(drawn.values()) for _ in of_it],
        hashes=[_hash_of(documents[owner], of_it) for owner, of_it in drawn.items()],
        document_bytes=[documents[owner].num_bytes for owner in drawn],
    )


def _cut(document: Document, size: int) -> list[Span]:
    """Spans of at most `size` bytes that cover the document, without those of nothing but white space."""
    if document.num_bytes <= size or document.turns is not None:
        return [(0, document.num_bytes)]
    text = document.text.encode("utf-8")
    spans: list[Span] = []
    start = 0
    while start < len(text):
        left = len(text) - start
        end = len(text) if left <= size else _end_of_piece(text, start, start + left // -(-left // size), size)
        if text[start:end].decode("utf-8").strip():
            spans.append((start, end))
        start = end
    return spans


def _end_of_piece(text: bytes, start: int, aim: int, size: int) -> int:
    """The end of a line nearest to `aim`, within an eighth of a piece; else of a word; else of a character."""
    low, high = aim - size // 8, min(aim + size // 8, start + size)
    for boundary in _BOUNDARIES:
        ends = [found.end() for found in boundary.finditer(text, low, high)]
        if ends:
            return min(ends, key=lambda end: abs(end - aim))
    end = aim
    while end > start and _is_within_character(text, end):
        end -= 1
    if end == start:
        end = aim
        while _is_within_character(text, end):
            end += 1
    return end


def _is_within_character(text: bytes, place: int) -> bool:
    return place < len(text) and text[place] & 0xC0 == 0x80


def _random_start(documents: Sequence[Document], max_bytes: int) -> float:
    """In [0, 1), the same for the same documents and budget."""
    digest = hashlib.sha256(f"{max_bytes}".encode())
    for document in documents:
        digest.update(document.hash.encode())
    return int.from_bytes(digest.digest()[:4], "big") / 2**32


def _spread(sizes: Numbers, budget: int, start: float) -> list[int]:
    """Which pieces [P] to take: every N-th, N chosen to fill the budget on average.

    Where those are too long together, every so many-th of them is left out; where they leave room, it is filled in the
    same way from the others. So neither long nor short pieces are preferred. `start` in [0, 1) says where in its
    interval each is taken.
    """
    taken = np.zeros(len(sizes), dtype=np.bool_)
    pool, room = np.arange(len(sizes)), budget
    while len(pool) and (number := len(pool) * room // int(sizes[pool].sum())):
        number = min(number, len(pool))
        places = ((np.arange(number) + start) * (len(pool) / number)).astype(np.int64)
        candidates = pool[np.minimum(places, len(pool) - 1)]
        size = int(sizes[candidates].sum())
        if size > room:
            pool = candidates
        else:
            taken[candidates] = True
            room -= size
            pool = np.flatnonzero(~taken)
    return [int(index) for index in np.flatnonzero(taken)]


def _pieces(document: Document, spans: Sequence[Span]) -> list[Document]:
    if spans == [(0, document.num_bytes)]:
        return [document]
    text = document.text.encode("utf-8")
    return [make_document(text[start:end].decode("utf-8")) for start, end in spans]


def _hash_of(document: Document, spans: Sequence[Span]) -> str:
    """SHA-256, in hex, of the document's hash and the spans, as in `{hash} 0-512 1024-1530`."""
    if spans == [(0, document.num_bytes)]:
        return document.hash
    return hashlib.sha256(" ".join([document.hash, *(f"{a}-{b}" for a, b in spans)]).encode()).hexdigest()
