from __future__ import annotations

import hashlib
import random
import re

import pytest

from lorabench.core.errors import DataError
from lorabench.corpora.documents import count_words, make_document
from lorabench.corpora.prepare import MIN_DOCUMENTS, SMALL_CORPUS, prepare
from tests.corpora.test_duplicates import text_of


def corpus(num_documents: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [text_of(rng, rng.randint(10, 60)) for _ in range(num_documents)]


def test_documents_are_ordered_by_hash_and_none_is_lost() -> None:
    texts = corpus(1000)
    prepared = prepare({"train": texts}, "x")
    assert sorted(d.text for kept in prepared.splits.values() for d in kept) == sorted(texts)
    for kept in prepared.splits.values():
        assert [d.hash for d in kept] == sorted(d.hash for d in kept)
        assert all(d.hash == hashlib.sha256(d.text.encode()).hexdigest() for d in kept)
    sizes = {split: len(kept) for split, kept in prepared.splits.items()}
    assert 740 < sizes["train"] < 860
    assert 60 < sizes["validation"] < 140
    assert 60 < sizes["test"] < 140


def test_a_document_keeps_its_split_when_others_come_or_go() -> None:
    texts = corpus(600)
    whole = prepare({"train": texts}, "x").splits
    part = prepare({"train": texts[:300][::-1]}, "x").splits
    for split, kept in part.items():
        assert {d.hash for d in kept} <= {d.hash for d in whole[split]}


@pytest.mark.parametrize("num_documents", [*range(MIN_DOCUMENTS, 31), SMALL_CORPUS - 1, SMALL_CORPUS])
def test_ten_documents_are_enough(num_documents: int) -> None:
    prepared = prepare({"train": corpus(num_documents, seed=num_documents)}, "x")
    assert all(prepared.splits.values())
    assert len(prepared.splits["train"]) >= 0.6 * num_documents


def test_fewer_are_refused_with_the_number_needed() -> None:
    with pytest.raises(DataError, match=f"at least {MIN_DOCUMENTS}"):
        prepare({"train": corpus(9) * 3}, "x")


def test_what_is_removed_is_counted() -> None:
    texts = corpus(50)
    prepared = prepare({"train": [*texts, "", " \n\t", texts[3], texts[4], texts[4]]}, "x")
    assert prepared.removed == {"empty": 2, "exact_duplicates": 3, "near_duplicates": 0}


def test_text_is_kept_exactly_but_for_what_cannot_be_encoded() -> None:
    texts = [f"  {text} \r\n\u00a0\ufb01 e\u0301 \u200b🙂 " for text in corpus(20)]
    broken = ["a\0b c", "d \ud800 e", "whole \U0001f600"]
    prepared = prepare({"train": texts + broken}, "x")
    kept = {d.text for documents in prepared.splits.values() for d in documents}
    assert kept == {*texts, "a\ufffdb c", "d \ufffd e", "whole \U0001f600"}
    assert prepared.num_repaired == 2


def test_splits_that_a_source_ships_are_kept() -> None:
    texts = corpus(400)
    prepared = prepare({"train": texts[:300], "validation": texts[300:350], "test": [*texts[350:], texts[0]]}, "x")
    assert {d.text for d in prepared.splits["validation"]} == set(texts[300:350])
    assert {d.text for d in prepared.splits["test"]} == {*texts[350:], texts[0]}
    assert {d.text for d in prepared.splits["train"]} == set(texts[1:300])
    assert prepared.removed["exact_duplicates"] == 1


def test_only_missing_splits_are_made_from_train() -> None:
    texts = corpus(1000)
    prepared = prepare({"train": texts[:900], "test": texts[900:]}, "x")
    assert {d.text for d in prepared.splits["test"]} == set(texts[900:])
    assert 60 < len(prepared.splits["validation"]) < 130
    held_out = {d.text for d in prepared.splits["validation"]}
    assert held_out <= set(texts[:900])


def test_sizes_of_a_document() -> None:
    document = make_document("Grüße,  an\u00a0alle ")
    assert document.num_bytes == len("Grüße,  an\u00a0alle ".encode())
    assert document.num_words == 4


@pytest.mark.parametrize(
    "text", ["", " ", "a", " a", "a\n", "\u2003a\u00a0b\x1cc\u200bd\x85", "\r\n\r\n", "\u3000好 \t\v\f🙂"]
)
def test_words_are_what_the_harness_counts(text: str) -> None:
    assert count_words(text) == len(re.split(r"\s+", text))


FORM = "Patient admitted with condition code {}. Please review the chart and sign the form before discharge. Thank you."


def test_a_split_lost_to_near_copies_says_of_what_and_the_remedy() -> None:
    texts = [FORM.format(number) for number in range(300)]
    with pytest.raises(DataError) as caught:
        prepare({"train": texts}, "forms")
    message = str(caught.value)
    assert "\n" not in message
    found = re.search(
        r"no document is left in (\w+) .*?: (\d+) of (\d+) documents of \1 are near copies \((.*?)\)", message
    )
    assert found is not None, message
    assert found[2] == found[3]
    assert sum(map(int, re.findall(r"\d+", found[4]))) == int(found[2])
    assert "documents in test" in found[4]
    assert "'Patient admitted with condition code" in message
    assert "near_duplicates: keep" in message


def test_near_copies_can_be_kept_and_are_told_of() -> None:
    texts = [FORM.format(number) for number in range(300)]
    prepared = prepare({"train": texts}, "forms", keep_near_duplicates=True)
    assert sorted(d.text for kept in prepared.splits.values() for d in kept) == sorted(texts)
    assert prepared.removed["near_duplicates"] == 0
    num_train = len(prepared.splits["train"])
    assert any(
        note.startswith(f"{num_train} of {num_train} documents of train are near copies") and note.endswith("were kept")
        for note in prepared.notes
    )


def test_a_split_that_loses_much_is_told_of() -> None:
    texts = corpus(400)
    train = [*texts[:300], *(f"{text} indeed" for text in texts[300:350])]
    prepared = prepare({"train": train, "validation": texts[350:], "test": texts[300:350]}, "x")
    assert prepared.removed["near_duplicates"] == 50
    assert prepared.notes == [
        "50 of 350 documents of train are near copies (50 of documents in test); they were removed"
    ]
    assert prepare({"train": train[:305], "validation": texts[350:], "test": texts[300:350]}, "x").notes == []


def test_a_split_lost_to_exact_copies_says_so() -> None:
    texts = corpus(60)
    with pytest.raises(
        DataError, match=r"0 documents are too few.* \(40 more are exact copies of documents of it and of test, 1 "
    ):
        prepare({"train": texts[:40], "validation": texts[40:], "test": texts[:40]}, "x")
    with pytest.raises(DataError, match=r"its validation split has no text \(20 more are exact copies .* of test"):
        prepare({"train": texts, "validation": texts[:20], "test": texts[:20]}, "x")
    labels = ["positive"] * 200 + ["negative"] * 99 + ["neutral"]
    with pytest.raises(
        DataError, match=r"3 documents are too few.*297 more are exact copies.*199 of them of 'positive'"
    ):
        prepare({"train": labels}, "labels")
