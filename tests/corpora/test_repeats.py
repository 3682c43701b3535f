"""Template text in held-out documents is counted, prose is not."""

from __future__ import annotations

import random
import time

import pytest

from lorabench.corpora.repeats import share_seen

SIGNATURE = "Kind regards from the support team of our beautiful town hall"


def test_sequences_of_words_that_occur_in_training() -> None:
    assert share_seen(["a b c d"], ["x a b c y"], 3) == 0.5
    assert share_seen(["a b c a b c"], ["a b c"], 3) == 0.5
    assert share_seen(["A  b\nC"], ["a b c"], 3) == 1.0
    assert share_seen(["a b c"], ["a b", "c"], 3) == 0.0
    assert share_seen(["a b"], ["a b c"], 3) is None
    assert share_seen([], ["a b c"], 3) is None


def test_tickets_with_one_signature_are_told_from_prose() -> None:
    generator = random.Random(0)
    words = [f"word{number}" for number in range(300)]

    def prose(count: int) -> str:
        return " ".join(generator.choice(words) for _ in range(count))

    training = [f"{prose(10)} {SIGNATURE}" for _ in range(50)]
    assert share_seen([prose(200) for _ in range(20)], training) == 0.0
    seen = share_seen([f"{prose(10)} {SIGNATURE}" for _ in range(20)], training)
    assert seen == pytest.approx(4 / 14, abs=0.01)


def test_time_grows_as_the_text() -> None:
    words = [f"word{number}" for number in range(5000)]
    generator = random.Random(0)
    text = " ".join(generator.choices(words, k=400_000))

    def seconds(training: str) -> float:
        started = time.process_time()
        share_seen([text[:20_000]], [training])
        return time.process_time() - started

    small, large = min(seconds(text[: len(text) // 4]) for _ in range(3)), min(seconds(text) for _ in range(3))
    assert large < 8 * small
