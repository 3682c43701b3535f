from __future__ import annotations

import re
from collections import Counter

from lorabench.corpora.prepare import prepare
from lorabench.samplepack.stories import read_grammar, write_stories


def test_the_same_seed_writes_the_same_stories() -> None:
    first = list(write_stories(20))
    assert first == list(write_stories(20))
    assert first[:5] == list(write_stories(5))
    assert first != list(write_stories(20, seed=2))


def test_no_two_stories_are_alike() -> None:
    stories = list(write_stories())
    assert len(set(stories)) == len(stories)
    assert 1_000_000 < sum(map(len, stories)) < 4_000_000
    prepared = prepare({"train": stories}, "stories")
    assert prepared.removed["near_duplicates"] <= len(stories) // 200
    paragraphs = Counter(paragraph for story in stories for paragraph in story.split("\n\n") if len(paragraph) > 100)
    repeated = sum(count for count in paragraphs.values() if count > 1)
    assert repeated < 0.015 * sum(paragraphs.values())


def test_stories_are_finished_prose() -> None:
    for story in write_stories(300):
        assert len(story.split("\n\n")) >= 8
        assert not re.search(r"[{}@^]|\(n\)|\.\.|  | ,| \.", story), story
        assert not re.search(r"\ba [aeiouAEIOU]", story), story
        assert story.count('"') % 2 == 0


def test_every_slot_of_the_grammar_exists() -> None:
    grammar = read_grammar()
    roles = {"hero", "friend", "rival", "trade", "town", "land", "object", "aim", "motive", "he", "him", "his"}
    for alternatives in grammar.values():
        assert len(alternatives) == len(set(alternatives))
        for text in alternatives:
            for role, symbol in re.findall(r"\{\^?(@?)([a-z_0-9]+)\^?\}", text):
                assert symbol in (roles if role else grammar)
