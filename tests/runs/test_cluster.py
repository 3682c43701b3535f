"""A run that is done elsewhere: what it needs travels there, and its folder comes back whole, without any network."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import lorabench
from lorabench.core.device import choose_device
from lorabench.core.errors import CancelledError, ConfigError, DiskError, InputError, MissingExtraError
from lorabench.corpora.catalog import find_corpus
from lorabench.corpora.references import CorpusReference, parts_of
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.records.provenance import running_code_sha256
from lorabench.records.store import RecordStore
from lorabench.runs.cluster import node
from lorabench.runs.cluster.arrivals import Arrival
from lorabench.runs.cluster.jobs import Claim, Claims, Delivery, Job, Letter, Piece
from lorabench.runs.cluster.luggage import base_score_files, check_travels, run_files, shared_files
from lorabench.runs.cluster.parcels import pack, unpack
from lorabench.runs.cluster.tracking import track_again
from lorabench.runs.task import RunOptions, RunTask, SharedInputs, TaskOutcome, TaskState, make_tasks
from lorabench.trackers.background import BackgroundTracker
from lorabench.trackers.jsonl import MetricsFile
from lorabench.trackers.make import TrackerGroup
from tests.report.synthetic import SyntheticResults
from tests.runs.conftest import ExperimentWriter, new_cache, write_corpus
from tests.runs.test_survival import results

LONGER = {"learning_rate": 0.02, "batch_size": 2, "context_length": 32, "train_bytes": 12000, "precision": "fp32"}


class Head:
    """Sends jobs to a node in this process, which has a cache of its own, and keeps what arrives."""

    node = "a-node"

    def __init__(self, out: Path, node_cache: Path, patch: pytest.MonkeyPatch) -> None:
        self.store = RecordStore(out)
        self.node_cache = node_cache
        self.patch = patch
        self.told: list[str] = []
        self.arrival: Arrival | None = None
        self.claims = Claims()
        self.lost_after: str | None = None
        """The node is lost after a delivery of this kind: checkpoint."""

    def send(self, letter: Letter) -> bool:
        assert self.arrival is not None
        assert letter.job == self.arrival.key
        if self.lost_after == "over":
            raise ConnectionError
        if letter.event is not None:
            self.told.append(letter.event.call)
        if letter.piece is not None:
            self.arrival.take(letter.piece)
        if letter.delivery is not None:
            self.arrival.put_in_place(letter.delivery)
            if self.lost_after == "checkpoint":
                self.lost_after = "over"
                raise ConnectionError
        return False

    def claim(self, name: str, job: str) -> Claim:
        return self.claims.claim(name, job)

    def give(self, name: str, files: Mapping[str, bytes]) -> None:
        self.claims.give(name, files)

    def fetch(self, piece: Any) -> bytes:
        return bytes(piece)

    def do(self, task: RunTask) -> TaskOutcome:
        inputs, files = shared_files(task.inputs, task.spec.training.train_bytes, lambda *_: None)
        own = run_files(self.store, task.run_id)
        parcels = [pack(path, place, bytes) for place, path in (*files, *base_score_files(self.store), *own)]
        key = f"job{len(self.told)}"
        self.arrival = Arrival(self.store, task.run_id, key, {place for place, _ in own})
        sent = task.model_copy(update={"inputs": inputs}).model_dump_json()
        job = Job(key, "session", sent, tuple(parcels), ("lorabench", "run"), running_code_sha256())
        with self.patch.context() as patch:
            patch.setenv("LORABENCH_CACHE", str(self.node_cache))
            return TaskOutcome.model_validate_json(node.do_job(job, self))


def tasks(path: Path, out: Path, **options: Any) -> list[RunTask]:
    plan = make_plan(load_experiment(path), choose_device("cpu"))
    return list(make_tasks(plan, RunOptions(output_dir=out, device="cpu", **options)).values())


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Head:
    node._office.cache_clear()
    return Head(tmp_path / "there", new_cache(tmp_path / "node"), monkeypatch)


@pytest.mark.slow
def test_a_run_done_on_a_node_is_the_run_done_here(
    experiment: ExperimentWriter, tmp_path: Path, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a saved adapter says of its base; a second task finds base scores, model and corpus there."""
    path = experiment(adapter={"rank": [2, 4], "dropout": 0.1})
    lorabench.run(path, tmp_path / "here", trackers=["none"])
    for task in tasks(path, tmp_path / "there"):
        outcome = head.do(task)
        assert outcome.state is TaskState.DONE
        assert outcome.record == head.store.get(task.run_id)
        assert outcome.record.environment.worker == "a-node"
        assert head.store.damaged_files(head.store.get(task.run_id)) == []
    assert results(tmp_path / "there") == results(tmp_path / "here")
    for name in ("adapter/adapter_config.json", "adapter/tokenizer.json"):
        one, other = (next((tmp_path / out / "runs").glob(f"*r2*/{name}")) for out in ("there", "here"))
        assert one.read_bytes() == other.read_bytes()
    assert {"start_run", "phase", "step"} <= set(head.told)
    assert [*(tmp_path / "there" / "runs").glob(".arriving-*")] == []
    assert [*(head.node_cache / "cluster" / "processes").glob("*/output/runs/*")] == []
    names = [{path.name for path in (tmp_path / out / "base_scores").glob("*.parquet")} for out in ("there", "here")]
    assert names[0] == names[1]


@pytest.mark.slow
def test_a_run_whose_node_is_lost_goes_on_from_the_last_checkpoint_that_arrived(
    experiment: ExperimentWriter, tmp_path: Path, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "WATCH_SECONDS", 0.001)
    path = experiment(adapter={"rank": 2, "dropout": 0.1}, training=LONGER)
    lorabench.run(path, tmp_path / "here", trackers=["none"])
    (task,) = tasks(path, tmp_path / "there", checkpoint_seconds=0.0)
    head.lost_after = "checkpoint"
    head.do(task)
    folder = head.store.run_dir(task.run_id)
    assert {entry.name for entry in folder.iterdir()} == {"checkpoints", "metrics.jsonl"}
    head.lost_after = None
    outcome = head.do(task)
    assert outcome.record is not None
    assert outcome.record.num_resumed == 1
    assert results(tmp_path / "there") == results(tmp_path / "here")
    assert not (folder / "checkpoints").exists()


def arrival(tmp_path: Path) -> Arrival:
    return Arrival(RecordStore(tmp_path / "out"), "run-a", "key", set())


def test_nothing_is_put_in_place_that_is_not_as_it_was_sent(tmp_path: Path) -> None:
    one = arrival(tmp_path)
    one.take(Piece("run/record.json", b"half of"))
    with pytest.raises(DiskError, match=r"record\.json arrived otherwise than it was sent"):
        one.put_in_place(Delivery({"run/record.json": "0" * 64}, is_whole=True))
    assert not one.is_complete
    assert not (tmp_path / "out" / "runs" / "run-a").exists()


def test_what_a_killed_head_left_half_arrived_is_removed(tmp_path: Path) -> None:
    """Of this run alone: another head may be receiving others."""
    left = arrival(tmp_path)
    left.take(Piece("run/metrics.jsonl", b"half of"))
    other = Arrival(left.store, "run-a-b", "key", set())
    other.take(Piece("run/metrics.jsonl", b"half of"))
    Arrival(left.store, "run-a", "another key", set()).forget()
    assert [path.name for path in left.store.runs_dir.iterdir()] == [".arriving-run-a-b-key"]


@pytest.mark.parametrize("place", ["run/../../elsewhere", "/etc/passwd", "elsewhere/file", "run//file", "../run/file"])
def test_nothing_is_written_outside_the_run(tmp_path: Path, place: str) -> None:
    with pytest.raises(DiskError, match="no part of a run"):
        arrival(tmp_path).take(Piece(place, b""))


def test_a_node_with_other_code_says_so(experiment: ExperimentWriter, tmp_path: Path, head: Head) -> None:
    task = tasks(experiment(adapter={"rank": 2}), tmp_path / "there")[0]
    job = Job("key", "session", task.model_dump_json(), (), (), "other")
    outcome = TaskOutcome.model_validate_json(node.do_job(job, head))
    assert outcome.state is TaskState.LEFT_ALONE
    assert outcome.problem == (
        f"{task.run_id}: a-node: another version of lorabench is installed here; install the head's on every node"
    )


def test_a_damaged_parcel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    parcel = pack(tmp_path / "file", "run/file", bytes)
    wrong = dataclasses.replace(parcel, pieces=(b"else",))
    with pytest.raises(DiskError, match="what arrived is not what was sent"):
        unpack(wrong, tmp_path / "target", bytes)
    assert not (tmp_path / "target").exists()
    unpack(parcel, tmp_path / "target", bytes)
    unpack(wrong, tmp_path / "target", bytes)  # it is there
    assert (tmp_path / "target").read_bytes() == b"content"


@pytest.mark.parametrize("form", ["file", "folder", "glob", "splits"])
def test_files_of_ones_own_are_the_same_corpus_elsewhere(
    form: str, tmp_path: Path, tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name and revision say so, however the files were named."""
    folder = tmp_path / "my texts"
    folder.mkdir()
    files = [str(write_corpus(folder / f"{name}.jsonl", seed)) for seed, name in enumerate(("one", "two"))]
    reference = {
        "file": CorpusReference(path=files[0]),
        "folder": CorpusReference(path=str(folder)),
        "glob": CorpusReference(path=str(folder / "*.jsonl")),
        "splits": CorpusReference(train=(files[0],), test=(files[1],)),
    }[form]
    source = find_corpus(reference, max_train_bytes=4000)
    inputs = SharedInputs(
        model=str(tiny_model("gpt2")),
        corpora=[{"name": source.name, "reference": reference, "revision": source.expected_revision()}],
        text_field="text",
        largest_train_bytes=4000,
    )
    moved, found = shared_files(inputs, 4000, lambda *_: None)
    for place, path in found:
        unpack(pack(path, place, bytes), tmp_path / "node" / place, bytes)
    there = parts_of(moved.corpora[0].reference).with_paths(lambda path: str(tmp_path / "node" / path))
    again = find_corpus(there, max_train_bytes=4000)
    assert (again.name, again.expected_revision()) == (source.name, source.expected_revision())
    assert moved.model.startswith(".inbox/")
    assert (tmp_path / "node" / moved.model / "config.json").is_file()
    assert sum(place.startswith("cache/corpora/") for place, _ in found) == 4


def test_what_does_not_travel_is_refused(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tasks(experiment(adapter={"rank": 2}), tmp_path / "there")[0]
    check_travels(task)
    measures = dataclasses.replace(task.measures, tasks={"arc": "arc"})
    with pytest.raises(InputError, match=r"^evaluation\.tasks: tasks of the harness do not travel"):
        check_travels(task.model_copy(update={"measures": measures}))
    own = tmp_path / "lorabench.yaml"
    own.write_text(f"models:\n  mine:\n    source: folder\n    path: {task.inputs.model}\n    family: llama\n")
    monkeypatch.setenv("LORABENCH_CATALOG", str(own))
    inputs = task.inputs.model_copy(update={"model": "mine"})
    with pytest.raises(InputError, match=rf"^models: mine is listed in {own}, which nodes do not have"):
        check_travels(task.model_copy(update={"inputs": inputs}))


def test_without_ray_the_command_names_what_to_install(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lorabench\[ray\]'"):
        lorabench.run(experiment(), tmp_path / "out", executor="ray", trackers=["none"])
    assert not (tmp_path / "out").exists()


def test_an_address_belongs_to_a_cluster(experiment: ExperimentWriter, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--address: the executor here does its runs here"):
        lorabench.run(experiment(), tmp_path / "out", address="10.0.0.1:6379", trackers=["none"])


def test_trackers_on_the_head_are_told_the_whole_curve(tmp_path: Path, experiment: ExperimentWriter) -> None:
    told: list[tuple[str, Any]] = []

    class Tracker:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *values: told.append((name, values))

    (record,) = SyntheticResults(tmp_path / "out", steps=6).grid(ranks=[8])
    task = tasks(experiment(adapter={"rank": 2}), tmp_path / "out")[0].model_copy(update={"spec": record.spec})
    group = TrackerGroup(MetricsFile(), [BackgroundTracker("fake", Tracker(), print)], 10.0)
    track_again(group, RecordStore(tmp_path / "out"), task, record)
    group.close()
    assert [name for name, _ in told] == ["start", *["log_step"] * 6, *["log_evaluation"] * 3, "log_samples", "finish"]
    assert told[0][1][0].run_id == record.run_id
    assert [values[0]["step"] for name, values in told if name == "log_step"] == [1, 2, 3, 4, 5, 6]
    assert "kind" not in told[1][1][0]
    assert told[-1][1] == (record, "completed")


class Courier(node._Courier):
    """Of a node with a folder of its own, in this process."""

    def __init__(self, head: Head, key: str, folder: Path) -> None:
        super().__init__(Job(key, "session", "", (), (), ""), head)
        self.folder = folder
        self.waited_for: list[str] = []
        self.num_made = 0

    def make(self, made: threading.Event | None = None, go_on: threading.Event | None = None) -> bytes:
        with self.once(self.folder / "key", on_wait=self.waited_for.append):
            path = self.folder / "key-a.parquet"
            if not path.exists():
                self.num_made += 1
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"scores")
            if made is not None and go_on is not None:
                made.set()
                assert go_on.wait(20)
        return path.read_bytes()


def test_nodes_without_a_common_disk_make_what_they_share_once(
    tmp_path: Path, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "WATCH_SECONDS", 0.01)
    one, other, late = (Courier(head, name, tmp_path / name) for name in ("one", "other", "late"))
    made, go_on = threading.Event(), threading.Event()
    first = threading.Thread(target=one.make, args=(made, go_on))
    first.start()
    assert made.wait(20)
    second = threading.Thread(target=other.make)
    second.start()
    while not other.waited_for:
        second.join(0.01)
    assert not other.folder.exists()
    go_on.set()
    first.join(20)
    second.join(20)
    assert late.make() == (other.folder / "key-a.parquet").read_bytes() == b"scores"
    assert [courier.num_made for courier in (one, other, late)] == [1, 0, 0]
    assert set(other.waited_for) == {"another node"}
    assert not late.waited_for


def test_what_a_lost_node_was_making_is_made_by_another(tmp_path: Path, head: Head) -> None:
    assert head.claim("key", "lost") == Claim()
    assert head.claim("key", "other") == Claim(owner="lost")
    head.claims.release("lost")
    other = Courier(head, "other", tmp_path / "other")
    other.make()
    assert other.num_made == 1
    assert head.claim("key", "third").files == {"key-a.parquet": b"scores"}


def test_a_head_that_is_gone_ends_what_waits_for_it(
    tmp_path: Path, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> Claim:
        raise ConnectionError

    monkeypatch.setattr(head, "claim", gone)
    courier = Courier(head, "one", tmp_path / "one")
    with pytest.raises(CancelledError, match="the head, which is gone"):
        courier.make()
    assert courier.must_stop()
