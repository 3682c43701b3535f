"""What happens without a hub, without a network, on a full disk; and that the token shows nowhere."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.conftest import GOOD_TOKEN, OTHER_TOKEN, Worker
from tests.hub.server import Fault, HubRepository, LocalHub
from tests.hub.test_corpora import entry as dataset_entry
from tests.hub.test_models import entry as model_entry


@pytest.fixture(scope="module")
def dead_url() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_a_hub_that_is_down_is_known_within_seconds(start_worker: Callable[..., Worker], dead_url: str) -> None:
    worker = start_worker(url=dead_url)
    for answer in (
        worker("fetch", entry=model_entry("gpt2")),
        worker("read_hub", entry=dataset_entry("pile-10k"), max_bytes=1000),
    ):
        assert answer["kind"] == "DownloadError"
        assert f"the hub at {dead_url} refuses connections" in answer["error"]
        assert "HF_ENDPOINT" in answer["error"]
        assert answer["seconds"] < 10


@pytest.mark.alone
@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_given_up_on(worker: Worker, hub_with_models: LocalHub) -> None:
    fault = Fault("/api/models/google", times=5, hang_seconds=13)
    hub_with_models.faults.append(fault)
    try:
        answer = worker("fetch", entry=model_entry("gemma-2b"), token=GOOD_TOKEN)
    finally:
        fault.times = 0
    assert "does not answer" in answer["error"]
    assert answer["seconds"] < 20


def test_offline_the_second_time(start_worker: Callable[..., Worker], hub_with_models: LocalHub, dead_url: str) -> None:
    online = start_worker()
    fetched = online.ok("fetch", entry=model_entry("pythia-410m"))
    loaded = online.ok("corpus", name="ag-news", max_train_bytes=5_000)
    offline = start_worker(url=dead_url, home=online.home, HF_HUB_OFFLINE="1")
    assert offline.ok("fetch", entry=model_entry("pythia-410m"))["folder"] == fetched["folder"]
    assert offline.ok("corpus", name="ag-news", max_train_bytes=5_000)["splits"] == loaded["splits"]
    for answer in (
        offline("fetch", entry=model_entry("gpt2")),
        offline("read_hub", entry=dataset_entry("pile-10k"), max_bytes=1000),
    ):
        assert answer["kind"] == "DownloadError"
        assert "HF_HUB_OFFLINE is set" in answer["error"]


def test_a_dataset_in_the_hubs_cache_is_read_offline(
    start_worker: Callable[..., Worker], hub: LocalHub, dead_url: str, tmp_path: Path
) -> None:
    there = hub.repositories["dataset", "Salesforce/wikitext"]
    commit = there.commit("main")
    cache = tmp_path / "hf" / "hub" / "datasets--Salesforce--wikitext"
    for path, content in there.branches["main"].items():
        file = cache / "snapshots" / commit / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    offline = start_worker(url=dead_url, home=tmp_path, HF_HUB_OFFLINE="1")
    read = offline.ok("read_hub", entry=dataset_entry("wikitext-103"), max_bytes=None)
    assert read["revision"] == commit
    assert len(read["texts"]["train"]) == 60


@pytest.mark.parametrize("small_disk", ["size=1m"], indirect=True)
def test_a_disk_that_is_too_small_is_said_before_the_first_byte(
    start_worker: Callable[..., Worker], hub_with_models: LocalHub, small_disk: Path
) -> None:
    sent = hub_with_models.bytes_sent("/storage/")
    (small_disk / "home").mkdir()
    worker = start_worker(home=small_disk / "home")
    answer = worker("fetch", entry=model_entry("gpt2"))
    worker.close()
    assert answer["kind"] == "DiskError"
    assert "HF_HOME" in answer["error"]
    assert hub_with_models.bytes_sent("/storage/") == sent


@pytest.mark.slow
def test_the_token_shows_nowhere(start_worker: Callable[..., Worker], hub_with_models: LocalHub) -> None:
    worker = start_worker(HF_DEBUG="1")
    hub_with_models.add(HubRepository("model", "us/empty", {"main": {"README.md": b""}}, private={GOOD_TOKEN}))
    hub_with_models.faults.append(Fault("/resolve/", times=1, status=500))
    answers = [
        worker("fetch", entry=model_entry("gemma-2b"), token=OTHER_TOKEN),
        worker("fetch", entry=model_entry("gemma-2b"), token=GOOD_TOKEN),
        worker("fetch", entry=model_entry("gpt2", repository="us/empty"), token=GOOD_TOKEN),
        worker("fetch", entry=model_entry("gpt2", revision="none"), token=GOOD_TOKEN),
        worker("read_hub", entry=dataset_entry("pile-10k"), max_bytes=1000, token=GOOD_TOKEN),
        worker("corpus", name="ag-news", max_train_bytes=1000, token=GOOD_TOKEN),
    ]
    sent = [request for request in hub_with_models.requests if GOOD_TOKEN in request.headers.get("authorization", "")]
    assert sent, "the token was not even used"
    assert not [request for request in sent if "/storage/" in request.path], "the token went to the storage host"
    planted = [GOOD_TOKEN, OTHER_TOKEN]
    assert not [token for token in planted if token in str(answers)]
    assert not [token for token in planted if token in worker.printed()]
    for path in worker.home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [token for token in planted if token.encode() in content], path


def test_an_unwritable_cache_is_said_plainly(start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    (tmp_path / "hf").write_text("a file where a folder should be")
    answer = start_worker(home=tmp_path)("fetch", entry=model_entry("gpt2"))
    assert answer["kind"] == "DiskError"
    assert str(tmp_path) in answer["error"]
    shutil.rmtree(tmp_path, ignore_errors=True)
