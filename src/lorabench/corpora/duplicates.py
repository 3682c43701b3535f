"""Finds text that leaked from one split into another: copies that are not exact.

A document is near another if the two share most of their word 3-shingles (Jaccard similarity of at least 0.6: edited,
reordered, reformatted copies), or if one of them lies nearly whole in the other (at least 0.9 of its shingles:
copies that were cut, or that got a header and a footer). MinHash (256 permutations) and locality-sensitive hashing
(128 bands of 2 rows, so that a copy of a fifth of a document is missed once in 200, of a half once in 10^15) name
candidates; their true overlap is then computed, so that nothing is removed on an estimate. Boilerplate that many
documents share (`shingles.py`) counts for nothing, unless a document is nothing else. A document shorter than a shingle
has no near copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorabench.corpora.documents import Document
from lorabench.corpora.shingles import Hashes, Shingler, mix

MIN_JACCARD = 0.6
MIN_CONTAINMENT = 0.9
MIN_CONTAINED_SHINGLES = 10
"""Less than that inside a longer document is a turn of phrase."""
NUM_PERMUTATIONS = 256
NUM_BANDS = 128

_CHUNK_CHARACTERS = 16_000_000
_CHUNK_DOCUMENTS = 10_000
_SEED = 20_261
_STANDARD_ERRORS = 5.0
"""By so many may a signature's estimate fall short of the similarity that a near copy must have."""

Numbers = npt.NDArray[np.int64]
Signatures = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Copy:
    """A document, and the one that it is a copy of."""

    split: str
    document: Document
    original_split: str
    original: Document


def remove_near_duplicates(
    splits: dict[str, list[Document]], progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, list[Document]], list[Copy]]:
    """The splits without near copies of other splits' documents, and what was removed.

    Test stays as it is; what is near it leaves validation and train; what is near validation leaves train.
    Told progress: (characters compared, characters in all). Cost: linear in the text, plus the candidates.
    """
    shingler = Shingler.of_corpus(document for documents in splits.values() for document in documents)
    total = sum(len(document.text) for documents in splits.values() for document in documents)
    done = 0

    def report(characters: int) -> None:
        nonlocal done
        done += characters
        if progress is not None:
            progress(done, total)

    held_out = _Index(shingler)
    held_out.add("test", splits["test"], report)
    kept, copies = {"test": splits["test"]}, list[Copy]()
    for split in ("validation", "train"):
        found = held_out.find_near(split, splits[split], report)
        gone = {copy.document.hash for copy in found}
        kept[split] = [document for document in splits[split] if document.hash not in gone]
        copies += found
        if split == "validation":
            held_out.add(split, kept[split], lambda _: None)
    return kept, copies


class _Index:
    """Held-out documents, in which near ones of others are looked up."""

    def __init__(self, shingler: Shingler) -> None:
        self._shingler = shingler
        self._documents: list[tuple[str, Document]] = []
        """With their splits."""
        self._shingles: list[Hashes] = []
        self._sizes = np.zeros(0, dtype=np.int64)
        self._signatures = np.zeros((0, NUM_PERMUTATIONS), dtype=np.uint32)
        self._keys = np.zeros(0, dtype=np.uint64)
        self._owners = np.zeros(0, dtype=np.int64)

    def add(self, split: str, documents: Sequence[Document], report: Callable[[int], None]) -> None:
        """Take documents into the index, those that have shingles."""
        for chunk in _chunks(documents):
            found = [(document, self._shingler.shingles(document.text)) for document in chunk]
            shingles = [hashes for _, hashes in found if len(hashes)]
            signatures = _sign(shingles)
            owners = np.repeat(np.arange(len(shingles)) + len(self._shingles), NUM_BANDS)
            self._documents += [(split, document) for document, hashes in found if len(hashes)]
            self._shingles += shingles
            self._signatures = np.concatenate([self._signatures, signatures])
            self._keys = np.concatenate([self._keys, _band_keys(signatures).ravel()])
            self._owners = np.concatenate([self._owners, owners])
            report(sum(len(document.text) for document in chunk))
        self._sizes = np.array([len(hashes) for hashes in self._shingles], dtype=np.int64)
        order = np.argsort(self._keys, kind="stable")
        self._keys, self._owners = self._keys[order], self._owners[order]

    def find_near(self, split: str, documents: Sequence[Document], report: Callable[[int], None]) -> list[Copy]:
        """Those of a split's documents that are near one in the index."""
        found = []
        for chunk in _chunks(documents):
            shingles = [self._shingler.shingles(document.text) for document in chunk]
            signatures = _sign(shingles)
            keys = _band_keys(signatures)
            first = np.searchsorted(self._keys, keys, side="left")
            last = np.searchsorted(self._keys, keys, side="right")
            for row, document in enumerate(chunk):
                hits = np.flatnonzero(last[row] > first[row])
                candidates = [self._owners[first[row, band] : last[row, band]] for band in hits]
                if not candidates or not len(shingles[row]):
                    continue
                near = self._nearest(np.concatenate(candidates), shingles[row], signatures[row])
                if near is not None:
                    found.append(Copy(split, document, *self._documents[near]))
            report(sum(len(document.text) for document in chunk))
        return found

    def _nearest(self, candidates: Numbers, shingles: Hashes, signature: Signatures) -> int | None:
        """A candidate whose true overlap is enough; those whose signatures rule it out are not looked at."""
        candidates = np.unique(candidates)
        wanted = _wanted_overlap(self._sizes[candidates], len(shingles))
        needed = wanted / (self._sizes[candidates] + len(shingles) - wanted)
        estimates = (self._signatures[candidates] == signature).mean(axis=1)
        slack = _STANDARD_ERRORS * np.sqrt(needed * (1 - needed) / NUM_PERMUTATIONS)
        possible = np.flatnonzero((needed <= 1.0) & (estimates >= needed - slack))
        for index in possible[np.argsort(-estimates[possible], kind="stable")]:
            common = np.intersect1d(self._shingles[candidates[index]], shingles, assume_unique=True)
            if len(common) >= wanted[index]:
                return int(candidates[index])
        return None


def _wanted_overlap(sizes: Numbers, size: int) -> npt.NDArray[np.float64]:
    """How many shingles a document of `size` must share with documents of `sizes` to be near them."""
    smaller = np.minimum(sizes, size)
    by_jaccard = MIN_JACCARD / (1 + MIN_JACCARD) * (sizes + size)
    by_containment = np.where(smaller >= MIN_CONTAINED_SHINGLES, MIN_CONTAINMENT * smaller, np.inf)
    return np.asarray(np.minimum(by_jaccard, by_containment), dtype=np.float64)


def _chunks(documents: Sequence[Document]) -> Iterator[list[Document]]:
    chunk: list[Document] = []
    characters = 0
    for document in documents:
        chunk.append(document)
        characters += len(document.text)
        if characters >= _CHUNK_CHARACTERS or len(chunk) >= _CHUNK_DOCUMENTS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _sign(shingles: Sequence[Hashes]) -> Signatures:
    """MinHash signatures [D, 256]."""
    from rensa import RMinHash

    offsets = np.concatenate([[0], np.cumsum([len(hashes) for hashes in shingles])]).astype(np.uint64)
    tokens = np.concatenate([np.zeros(0, dtype=np.uint64), *shingles])
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(tokens, offsets, NUM_PERMUTATIONS, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(shingles), NUM_PERMUTATIONS)


def _band_keys(signatures: Signatures) -> Hashes:
    """A hash of each band and its number [D, 128]; equal keys make a pair of candidates."""
    rows = signatures.reshape(len(signatures), NUM_BANDS, NUM_PERMUTATIONS // NUM_BANDS).astype(np.uint64)
    keys = np.broadcast_to(np.arange(NUM_BANDS, dtype=np.uint64), rows.shape[:2])
    for row in range(rows.shape[2]):
        keys = mix(keys * np.uint64(0x100000001B3) + rows[:, :, row])
    return keys
