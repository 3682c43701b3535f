"""A larger budget of a hub corpus adds training text to a smaller one's, and changes no held-out text."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lorabench.corpora import hub_stream
from lorabench.corpora.hub_stream import load_hub_documents
from lorabench.corpora.prepare import Prepared, prepare
from lorabench.corpora.sources.hub import HubCorpus

STEP = 12_000


@dataclass
class Stream:
    """What `datasets` streams of a split."""

    texts: list[str]
    num_shards: int = 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter({"text": text} for text in self.texts)


TEXTS = [
    " ".join(f"word{draw.randrange(10**6)}" for _ in range(20)) for draw in [random.Random(7)] for _ in range(1600)
]


def prepared(monkeypatch: pytest.MonkeyPatch, budget: int, texts: list[str]) -> Prepared:
    entry = HubCorpus.model_construct(name="x", source="hub", repository="us/x", approximate_bytes=1)
    monkeypatch.setattr(hub_stream, "STEP_BYTES", STEP)
    monkeypatch.setattr(
        hub_stream,
        "_find",
        lambda entry, repository: hub_stream._Source(entry, "x", "0" * 40, {"train": Stream(texts)}),
    )
    read = load_hub_documents(entry, max_bytes=budget)
    return prepare(read.texts, "x", more_train=read.more_train)


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:150]], ids=["much", "little"])
def test_a_larger_budget_changes_no_held_out_text(monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> None:
    small, middle, large = (prepared(monkeypatch, factor * STEP, texts) for factor in (1, 2, 6))
    for split in ("validation", "test"):
        assert small.splits[split] == middle.splits[split] == large.splits[split]
        assert len(small.splits[split]) >= 5
    trained = [{document.text for document in found.splits["train"]} for found in (small, middle, large)]
    assert trained[0] < trained[1] if texts is TEXTS else trained[0] <= trained[1]
    assert trained[0] <= trained[2]
    held_out = {document.text for split in ("validation", "test") for document in large.splits[split]}
    assert not held_out & trained[2]
    size = sum(map(len, trained[2])) + sum(map(len, held_out))
    assert 0.95 * 6 * STEP < size < 1.1 * 6 * STEP if texts is TEXTS else size < 6 * STEP


def test_copies_of_held_out_text_do_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(monkeypatch, STEP, TEXTS)
    held_out = [document.text for split in ("validation", "test") for document in first.splits[split]]
    more = [*held_out, *(text + " more" for text in held_out), "a text of its own, which is near none"]
    found = prepare({"train": [d.text for docs in first.splits.values() for d in docs]}, "x", more_train=more)
    added = {d.text for d in found.splits["train"]} - {d.text for d in first.splits["train"]}
    assert added == {more[-1]}
    assert found.splits["test"] == first.splits["test"]
    assert found.removed["exact_duplicates"] == len(held_out)
    assert found.removed["near_duplicates"] == len(held_out)
