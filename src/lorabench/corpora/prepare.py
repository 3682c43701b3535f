"""Turns a source's texts into the three splits: repaired, split by their own hash, without leaks between splits.

What changes the splits, the facts about a document, or how held-out text is drawn, raises
`lorabench.corpora.entry.PREPARATION_VERSION`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lorabench.core.errors import DataError
from lorabench.corpora.conversations import Row, has_text
from lorabench.corpora.documents import MIN_DOCUMENTS, SPLITS, Document, make_conversation, make_document, repair
from lorabench.corpora.duplicates import Copy, remove_near_duplicates

SMALL_CORPUS = 200
"""With fewer documents a split by threshold could leave one of the splits empty."""
MANY_COPIES = 0.1
"""A split that loses at least this share to near copies is named in the corpus's notes."""
HELD_OUT_FRACTION = {"validation": 0.1, "test": 0.1}


@dataclass
class Prepared:
    """Splits in the order of the documents' hashes, and what was done to get there."""

    splits: dict[str, list[Document]]
    removed: dict[str, int] = field(default_factory=dict)
    num_repaired: int = 0
    notes: list[str] = field(default_factory=list)
    """What a reader of figures should know of the copies."""


def prepare(
    texts: Mapping[str, Iterable[Row]],
    name: str,
    progress: Callable[[int, int], None] | None = None,
    *,
    more_train: Iterable[Row] = (),
    keep_near_duplicates: bool = False,
) -> Prepared:
    """Documents of the splits that the source has; those it lacks are made from its train.

    Near copies across splits are removed, or only counted and reported. What is `more_train` is added to train where it
    is no copy, and changes no other split. Raises DataError where there are too few documents for three splits.
    """
    cleaner = _Cleaner()
    sources = {split: cleaner.documents(texts.get(split, ()), split) for split in reversed(SPLITS)}
    splits = _fill(sources, {split for split in SPLITS if split in texts}, name, cleaner.exact)
    kept, near = remove_near_duplicates(splits, progress)
    added = cleaner.documents(more_train, "train")
    if added:
        clean, copies = remove_near_duplicates({**kept, "train": added}, progress)
        kept["train"] = _by_hash([*kept["train"], *clean["train"]])
        splits["train"] = _by_hash([*splits["train"], *added])
        near += [copy for copy in copies if copy.split == "train"]
    removed = {"empty": cleaner.num_empty, "exact_duplicates": len(cleaner.exact)}
    if keep_near_duplicates:
        notes = _notes(near, splits, 0.0, "kept")
        return Prepared(splits, removed | {"near_duplicates": 0}, cleaner.num_repaired, notes)
    for split in SPLITS:
        if not kept[split]:
            raise DataError(f"dataset {name}: {_lost_split(split, near, splits)}")
    notes = _notes(near, splits, MANY_COPIES, "removed")
    return Prepared(kept, removed | {"near_duplicates": len(near)}, cleaner.num_repaired, notes)


@dataclass
class _Cleaner:
    """Makes documents of rows, each text once."""

    num_empty: int = 0
    num_repaired: int = 0
    exact: list[Copy] = field(default_factory=list)
    _first: dict[str, str] = field(default_factory=dict)
    """By hash: the split that a document was first seen in."""

    def documents(self, rows: Iterable[Row], split: str) -> list[Document]:
        """Those of rows with text that were not seen before."""
        found = []
        for raw in rows:
            row = _repair(raw)
            self.num_repaired += row != raw
            if not has_text(row):
                self.num_empty += 1
                continue
            document = make_document(row) if isinstance(row, str) else make_conversation(row)
            if document.hash in self._first:
                self.exact.append(Copy(split, document, self._first[document.hash], document))
                continue
            self._first[document.hash] = split
            found.append(document)
        return found


def _by_hash(documents: Iterable[Document]) -> list[Document]:
    return sorted(documents, key=lambda document: document.hash)


def _repair(row: Row) -> Row:
    if isinstance(row, str):
        return repair(row)
    return tuple(replace(turn, content=repair(turn.content)) for turn in row)


def _notes(near: Sequence[Copy], splits: Mapping[str, Sequence[Document]], least: float, what: str) -> list[str]:
    """A sentence for each split of which at least such a share is near copies, saying what became of them."""
    counts = Counter(copy.split for copy in near)
    return [
        f"{_describe(near, split, splits)}; they were {what}"
        for split in counts
        if counts[split] >= least * len(splits[split])
    ]


def _lost_split(split: str, near: Sequence[Copy], splits: Mapping[str, Sequence[Document]]) -> str:
    example = next(copy for copy in near if copy.split == split)
    return (
        f"no document is left in {split} once near duplicates are removed: {_describe(near, split, splits)}, such as "
        f"{_beginning(example.document)}, which is near {_beginning(example.original)}; give documents with more text "
        "of their own, or keep near copies by near_duplicates: keep (docs/data.md)"
    )


def _describe(copies: Sequence[Copy], split: str, splits: Mapping[str, Sequence[Document]]) -> str:
    """How much of a split is near copies of what."""
    origins = Counter(copy.original_split for copy in copies if copy.split == split)
    of = " and ".join(f"{count:,} of documents in {origin}" for origin, count in sorted(origins.items()))
    return f"{origins.total():,} of {len(splits[split]):,} documents of {split} are near copies ({of})"


def _beginning(document: Document) -> str:
    text = document.text.strip()
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _fill(
    sources: dict[str, list[Document]], shipped: set[str], name: str, exact: Sequence[Copy]
) -> dict[str, list[Document]]:
    """Take the splits that the source does not ship from its train, by the documents' hashes."""
    for split in shipped - {"train"}:
        if not sources[split]:
            raise DataError(f"dataset {name}: its {split} split has no text{_exact_copies(exact, split)}")
    missing = [split for split in ("validation", "test") if split not in shipped]
    documents = _by_hash(sources["train"])
    if len(documents) < MIN_DOCUMENTS:
        raise DataError(
            f"dataset {name}: {len(documents)} documents are too few to be split into train, validation and test; "
            f"at least {MIN_DOCUMENTS} different ones with text are needed{_exact_copies(exact, 'train')}"
        )
    splits = {split: _by_hash(sources[split]) for split in shipped}
    small = len(documents) < SMALL_CORPUS
    splits.update({split: [] for split in missing} | {"train": []})
    for position, document in enumerate(documents):
        place = position / len(documents) if small else int(document.hash[:13], 16) / 16**13
        splits[_split_at(place, missing)].append(document)
    return {split: splits[split] for split in SPLITS}


def _exact_copies(copies: Sequence[Copy], split: str) -> str:
    """What a message adds where the source's split held more documents, that were copies."""
    found = [copy for copy in copies if copy.split == split]
    if not found:
        return ""
    most, count = Counter(copy.document.hash for copy in found).most_common(1)[0]
    example = next(copy for copy in found if copy.document.hash == most)
    others = sorted({copy.original_split for copy in found} - {split})
    where = f" of it and of {' and '.join(others)}" if others else ""
    return (
        f" ({len(found):,} more are exact copies of documents{where}, {count:,} of them of "
        f"{_beginning(example.original)})"
    )


def _split_at(place: float, missing: list[str]) -> str:
    """The split of a document whose place among the hashes is `place` in [0, 1): held-out splits are at the end."""
    upper = 1.0
    for split in reversed(missing):
        lower = round(upper - HELD_OUT_FRACTION[split], 6)
        if place >= lower:
            return split
        upper = lower
    return "train"
