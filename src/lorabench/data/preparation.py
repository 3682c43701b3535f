"""Turns a source's texts into the three splits: repaired, split by their own hash, without leaks between splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from lorabench.data.documents import SPLITS, Document, make_document, repair
from lorabench.data.duplicates import remove_near_duplicates
from lorabench.errors import DataError

PREPARATION_VERSION = 3
"""Raise it when the same texts would give other splits, or other facts about a document."""
MIN_DOCUMENTS = 10
SMALL_CORPUS = 200
"""With fewer documents a split by threshold could leave one of the splits empty."""
HELD_OUT_FRACTION = {"validation": 0.1, "test": 0.1}


@dataclass
class Prepared:
    """Splits in the order of the documents' hashes, and what was done to get there."""

    splits: dict[str, list[Document]]
    removed: dict[str, int] = field(default_factory=dict)
    num_repaired: int = 0


def prepare(
    texts: Mapping[str, Iterable[str]], name: str, progress: Callable[[int, int], None] | None = None
) -> Prepared:
    """Documents of the splits that the source has; those it lacks are made from its train.

    Raises DataError where there are too few documents for three splits.
    """
    removed = {"empty": 0, "exact_duplicates": 0}
    num_repaired = 0
    seen: set[str] = set()
    sources: dict[str, list[Document]] = {}
    for split in reversed(SPLITS):
        sources[split] = []
        for raw in texts.get(split, ()):
            text = repair(raw)
            num_repaired += text != raw
            if not text.strip():
                removed["empty"] += 1
                continue
            document = make_document(text)
            if document.hash in seen:
                removed["exact_duplicates"] += 1
                continue
            seen.add(document.hash)
            sources[split].append(document)
    splits = _fill(sources, {split for split in SPLITS if split in texts}, name)
    splits, removed["near_duplicates"] = remove_near_duplicates(splits, progress)
    for split in SPLITS:
        if not splits[split]:
            raise DataError(f"dataset {name}: no document is left in {split} once near duplicates are removed")
    return Prepared(splits, removed, num_repaired)


def _fill(sources: dict[str, list[Document]], shipped: set[str], name: str) -> dict[str, list[Document]]:
    """Take the splits that the source does not ship from its train, by the documents' hashes."""
    for split in shipped - {"train"}:
        if not sources[split]:
            raise DataError(f"dataset {name}: its {split} split has no text")
    missing = [split for split in ("validation", "test") if split not in shipped]
    documents = sorted(sources["train"], key=lambda document: document.hash)
    if len(documents) < MIN_DOCUMENTS:
        raise DataError(
            f"dataset {name}: {len(documents)} documents are too few to be split into train, validation and test; "
            f"at least {MIN_DOCUMENTS} different ones with text are needed"
        )
    splits = {split: sorted(sources[split], key=lambda document: document.hash) for split in shipped}
    small = len(documents) < SMALL_CORPUS
    splits.update({split: [] for split in missing} | {"train": []})
    for position, document in enumerate(documents):
        place = position / len(documents) if small else int(document.hash[:13], 16) / 16**13
        splits[_split_at(place, missing)].append(document)
    return {split: splits[split] for split in SPLITS}


def _split_at(place: float, missing: list[str]) -> str:
    """The split of a document whose place among the hashes is `place` in [0, 1): held-out splits are at the end."""
    upper = 1.0
    for split in reversed(missing):
        lower = round(upper - HELD_OUT_FRACTION[split], 6)
        if place >= lower:
            return split
        upper = lower
    return "train"
