from __future__ import annotations

import functools
import itertools
import random
import re
import time
from collections.abc import Callable

import pytest

from lorabench.core.errors import DataError
from lorabench.corpora.documents import Document, make_document
from lorabench.corpora.duplicates import MIN_CONTAINED_SHINGLES, MIN_CONTAINMENT, MIN_JACCARD, remove_near_duplicates
from lorabench.corpora.prepare import prepare
from lorabench.corpora.shingles import Shingler
from lorabench.corpora.store import load_corpus

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "rta", "ll", "mosk", "ve", "x")]


def text_of(rng: random.Random, num_words: int) -> str:
    return " ".join(rng.choices(WORDS, k=num_words))


def changed(rng: random.Random, text: str, num_changes: int) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), num_changes):
        words[place] = f"changed{rng.randrange(10**6)}"
    return " ".join(words)


@functools.cache
def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def is_near(one: str, other: str) -> bool:
    """The definition, pair by pair."""
    first, second = shingles(one), shingles(other)
    common, smaller = len(first & second), min(len(first), len(second))
    contained = smaller >= MIN_CONTAINED_SHINGLES and common >= MIN_CONTAINMENT * smaller
    return contained or (common > 0 and common >= MIN_JACCARD * len(first | second))


def documents(texts: list[str]) -> list[Document]:
    return [make_document(text) for text in texts]


def test_exactly_the_pairs_at_the_threshold_are_removed() -> None:
    rng = random.Random(3)
    train = [text_of(rng, rng.randint(40, 400)) for _ in range(300)]
    held_out = [text_of(rng, rng.randint(40, 400)) for _ in range(60)]
    held_out += [changed(rng, source, rng.randint(0, max(1, len(source.split()) // 7))) for source in train[:120]]
    held_out += [source[: rng.randint(len(source) // 3, len(source))] for source in train[120:160]]
    splits = {"train": documents(train), "validation": documents(held_out[::2]), "test": documents(held_out[1::2])}
    kept, copies = remove_near_duplicates(splits)
    expected = [text for text in train if not any(is_near(text, other) for other in held_out)]
    assert [document.text for document in kept["train"]] == expected
    assert kept["test"] == splits["test"]
    assert 40 < len(copies) == len(train) - len(expected) < 160
    for first, second in itertools.combinations(("train", "validation", "test"), 2):
        for one in kept[first]:
            assert not any(is_near(one.text, other.text) for other in kept[second])


def sentences_of(rng: random.Random, num_sentences: int) -> list[str]:
    return [text_of(rng, rng.randint(12, 25)).capitalize() + "." for _ in range(num_sentences)]


def reordered(text: str) -> str:
    sentences = text.split(". ")
    random.Random(len(text)).shuffle(sentences)
    return ". ".join(sentences)


DISGUISES: dict[str, Callable[[str], str]] = {
    "case": str.upper,
    "white space": lambda text: text.replace(" ", "\n  "),
    "punctuation": lambda text: text.replace(".", " -- ").replace(" ", ", ") + "!",
    "edited": lambda text: changed(random.Random(len(text)), text, len(text.split()) // 13),
    "every twentieth word": lambda text: " ".join(f"x{i}" if i % 20 == 0 else w for i, w in enumerate(text.split())),
    "header": lambda text: "Published on Monday by our own correspondent | All rights reserved\n\n" + text,
    "header and footer as long": lambda text: "\n".join(
        (text_of(random.Random(1), 60), text, text_of(random.Random(2), 60))
    ),
    "reordered": reordered,
    "first half": lambda text: text[: len(text) // 2],
    "last third": lambda text: text[-len(text) // 3 :],
    "inside a text four times as long": lambda text: "\n".join([text_of(random.Random(len(text)), 400), text]),
    "cut and edited": lambda text: changed(random.Random(len(text)), text[: len(text) * 2 // 3], 2),
}


@pytest.mark.parametrize("copied", ["into train", "into validation and test"])
@pytest.mark.parametrize("disguise", DISGUISES)
def test_disguised_copies_are_found(disguise: str, copied: str) -> None:
    rng = random.Random(5)
    texts = [" ".join(sentences_of(rng, 8)) for _ in range(80)]
    others = [DISGUISES[disguise](text) for text in texts[:40]]
    train, held_out = (others + texts[40:], texts[:40]) if copied == "into train" else (texts, others)
    kept, copies = remove_near_duplicates(
        {"train": documents(train), "validation": documents(held_out[:20]), "test": documents(held_out[20:])}
    )
    assert len(copies) == 40
    assert [document.text for document in kept["train"]] == texts[40:]


def test_templated_documents_with_their_own_content_are_kept() -> None:
    rng = random.Random(4)
    form = "Dear customer, thank you for your order. We have sent {} to you at {} and hope to see you again soon. {}"
    texts = [form.format(text_of(rng, 6), text_of(rng, 8), text_of(rng, 12)) for _ in range(300)]
    splits = {"train": documents(texts[:200]), "validation": documents(texts[200:250]), "test": documents(texts[250:])}
    assert remove_near_duplicates(splits) == (splits, [])


def rows(rng: random.Random, prompts: list[str], num_own: int, num_rows: int = 400) -> list[str]:
    return [
        f"{rng.choice(prompts)}\nUser: {text_of(rng, num_own // 2)}\nAssistant: {text_of(rng, num_own - num_own // 2)}"
        for _ in range(num_rows)
    ]


@pytest.mark.parametrize("num_prompts", [1, 3, 10])
@pytest.mark.parametrize("num_words", [30, 130, 1000])
@pytest.mark.parametrize("num_own", [10, 40])
def test_shared_system_prompts_cost_no_document(num_prompts: int, num_words: int, num_own: int) -> None:
    rng = random.Random(11)
    texts = rows(rng, [text_of(rng, num_words) for _ in range(num_prompts)], num_own)
    prepared = prepare({"train": texts}, "x")
    assert sum(len(kept) for kept in prepared.splits.values()) == len(texts)
    assert prepared.removed["near_duplicates"] == 0


LICENCE = (
    "Copyright the authors. Licensed under the terms of the licence; you may not use this file except in compliance "
    "with it. Unless required by applicable law or agreed to in writing, software distributed under the licence is "
    "distributed on an as is basis, without warranties or conditions of any kind, either express or implied."
)
FRAMES: dict[str, Callable[[str], str]] = {
    "header": lambda text: f"{LICENCE}\n\n{text}",
    "footer": lambda text: f"{text}\n\n{LICENCE}",
    "both": lambda text: f"{LICENCE}\n\n{text}\n\n{LICENCE[::-1]}",
    "in the middle": lambda text: f"{text[: len(text) // 2]} {LICENCE} {text[len(text) // 2 :]}",
    "questions": lambda text: f"{LICENCE} Question: {text[: len(text) // 2]} Answer: {text[len(text) // 2 :]}",
}


@pytest.mark.parametrize("frame", FRAMES)
def test_copies_are_found_below_shared_boilerplate(frame: str) -> None:
    """The same copies as without it: boilerplate neither makes copies nor hides them."""
    rng = random.Random(12)
    texts = [text_of(rng, rng.randint(40, 120)) for _ in range(200)]
    copies = [changed(rng, text, len(text.split()) // 25) for text in texts[:30]]
    held_out = [text_of(rng, 60) for _ in range(30)]
    framed, framed_copies, others = (list(map(FRAMES[frame], group)) for group in (texts, copies, held_out))
    kept, found = remove_near_duplicates(
        {"train": documents(framed), "validation": documents(framed_copies), "test": documents(others)}
    )
    assert [document.text for document in kept["train"]] == framed[30:]
    assert {(copy.document.text, copy.original_split, copy.original.text) for copy in found} == {
        (text, "validation", copy) for text, copy in zip(framed[:30], framed_copies, strict=True)
    }


def test_a_copy_below_another_prompt_or_none_is_found() -> None:
    rng = random.Random(13)
    one, other = text_of(rng, 150), text_of(rng, 150)
    own = [text_of(rng, 30) for _ in range(200)]
    train = [f"{one}\n{text}" for text in own]
    test = [f"{other}\n{text}" for text in own[:20]] + own[20:40] + [f"{other}\n{text_of(rng, 30)}" for _ in range(60)]
    kept, _ = remove_near_duplicates({"train": documents(train), "validation": [], "test": documents(test)})
    assert [document.text for document in kept["train"]] == train[40:]


@pytest.mark.parametrize("num_words", [40, 200])
@pytest.mark.parametrize("one_in", [25, 60])
@pytest.mark.parametrize("num_originals", [1, 3])
def test_a_corpus_of_nothing_but_copies_is_found_out(num_words: int, one_in: int, num_originals: int) -> None:
    """What all documents share is boilerplate, but a document that is nothing else is a copy."""
    rng = random.Random(14)
    originals = [text_of(rng, num_words) for _ in range(num_originals)]
    texts = [changed(rng, rng.choice(originals), max(1, num_words // one_in)) for _ in range(300)]
    with pytest.raises(DataError, match=r"no document is left in (train|validation)"):
        prepare({"train": texts}, "x")


def test_boilerplate_depends_on_neither_order_nor_splits() -> None:
    rng = random.Random(15)
    texts = documents(rows(rng, [text_of(rng, 60)], 20, 2500) + [text_of(rng, 60) for _ in range(800)])
    shuffled = rng.sample(texts, len(texts))
    one, two = Shingler.of_corpus(texts), Shingler.of_corpus(shuffled)
    assert len(one.boilerplate.passages) == len(two.boilerplate.passages) == 58 + 1
    assert len(one.boilerplate.all) == len(two.boilerplate.all)
    for document in texts[:50] + texts[-50:]:
        assert len(one.shingles(document.text)) == len(two.shingles(document.text))


def num_boilerplate(texts: list[str]) -> int:
    return len(Shingler.of_corpus(documents(texts)).boilerplate.passages)


def test_turns_of_phrase_and_rare_passages_are_no_boilerplate() -> None:
    rng = random.Random(16)
    phrase, passage = "on the other hand it has to be said that", text_of(rng, 60)
    texts = [f"{text_of(rng, 20)} {phrase} {text_of(rng, 20)}" for _ in range(300)]
    texts += [f"{passage} {text_of(rng, 30)}" for _ in range(10)]
    assert num_boilerplate(texts) == 0
    assert num_boilerplate(texts[-4:]) == 0
    assert num_boilerplate(texts[-10:]) == 58


def test_copies_between_validation_and_test_leave_validation() -> None:
    rng = random.Random(6)
    text = text_of(rng, 200)
    splits = {
        "train": documents([text_of(rng, 200)]),
        "validation": documents([changed(rng, text, 2), text_of(rng, 200)]),
        "test": documents([text]),
    }
    kept, copies = remove_near_duplicates(splits)
    assert len(copies) == 1
    assert kept["validation"] == splits["validation"][1:]
    assert kept["test"] == splits["test"]


def test_text_without_spaces_is_compared_by_characters() -> None:
    rng = random.Random(7)
    signs = [chr(0x4E00 + number) for number in range(2000)]
    texts = ["".join(rng.choices(signs, k=300)) for _ in range(20)]
    near = texts[0][:150] + "\u6c34" + texts[0][151:]
    kept, copies = remove_near_duplicates(
        {
            "train": documents(texts),
            "validation": documents([near]),
            "test": documents(["".join(rng.choices(signs, k=300))]),
        }
    )
    assert len(copies) == 1
    assert [document.text for document in kept["train"]] == texts[1:]


def test_documents_shorter_than_a_shingle_are_near_nothing() -> None:
    tiny = ["C", "C++", "Yes.", "yes", "!", "two words", ""]
    splits = {
        "train": documents([*tiny, "now three words"]),
        "validation": documents(["c", "Two words!", "Now three words."]),
        "test": documents(["YES", "?"]),
    }
    kept, copies = remove_near_duplicates(splits)
    assert len(copies) == 1
    assert [document.text for document in kept["train"]] == tiny


def test_many_documents_with_common_text_stay_fast() -> None:
    rng = random.Random(8)
    shared = text_of(rng, 160)
    texts = [f"{shared} {text_of(rng, 60)}" for _ in range(1500)]
    started = time.process_time()
    prepare({"train": texts}, "x")
    assert time.process_time() - started < 20


@pytest.mark.alone
@pytest.mark.slow
def test_a_hundred_megabytes_take_less_than_two_minutes() -> None:
    rng = random.Random(9)
    texts, num_bytes = [], 0
    while num_bytes < 100_000_000:
        texts.append(text_of(rng, rng.randint(50, 900)))
        num_bytes += len(texts[-1])
    originals = [text for text in texts[:1500] if len(text.split()) >= 100]
    kinds = [DISGUISES[kind] for kind in ("case", "edited", "header", "first half", "last third")]
    planted = [kinds[number % len(kinds)](text) for number, text in enumerate(originals)]
    started = time.process_time()
    prepared = prepare({"train": texts + planted}, "x")
    assert time.process_time() - started < 120, "processor seconds, so that other work on the machine does not count"
    places = {document.text: split for split, kept in prepared.splits.items() for document in kept}
    for original, copy in zip(originals, planted, strict=True):
        assert len({places.get(original), places.get(copy)} - {None}) == 1
    assert prepared.removed["near_duplicates"] > 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "most"),
    [("news", 0.001), ("wikipedia", 0.0), ("medical", 0.035), ("technical-docs", 0.045), ("stories", 0.0)],
)
def test_little_of_the_sample_pack_is_removed(name: str, most: float) -> None:
    """Clinical definitions and docstrings are full of phrases that return; see docs/data.md."""
    info = load_corpus(name, max_train_bytes=None).info
    assert info.removed["near_duplicates"] <= most * sum(info.num_documents.values())
