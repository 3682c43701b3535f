"""Corpora of the hub by their id, over HTTP: splits and fields are found."""

from __future__ import annotations

from tests.hub import corpora
from tests.hub.conftest import Worker
from tests.hub.server import LocalHub


def test_a_repository_is_read_by_its_id(worker: Worker, hub: LocalHub) -> None:
    read = worker.ok("corpus", name="roneneldan/TinyStories", max_train_bytes=None)
    commit = hub.repositories["dataset", "roneneldan/TinyStories"].commit("main")
    assert read["info"]["name"] == "roneneldan_TinyStories"
    assert read["revision"].startswith(commit)
    assert read["info"]["pinned"] is True
    train = {text for part in range(4) for text in corpora.texts(f"stories{part}", 40)}
    held_out = set(corpora.texts("stories-v", 30))
    assert set(read["splits"]["train"]) | set(read["splits"]["test"]) == train
    assert set(read["splits"]["validation"]) == held_out
    again = worker.ok("corpus", name=f"roneneldan/TinyStories@{commit}", max_train_bytes=None)
    assert again["info"] == read["info"]


def test_what_is_not_there_is_refused(worker: Worker) -> None:
    answer = worker("corpus", name="nobody/nothing", max_train_bytes=None)
    assert "there is no dataset nobody/nothing" in answer["error"]
    answer = worker("corpus", name="roneneldan/TinyStories@nowhere", max_train_bytes=None)
    assert "no revision nowhere" in answer["error"]
