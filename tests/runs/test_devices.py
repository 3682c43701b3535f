"""Several workers on one machine: the results of one, whatever dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

import lorabench
from lorabench.core.device import choose_device
from lorabench.core.errors import EnvironmentProblem, InputError
from lorabench.core.locks import lock_owner
from lorabench.records.provenance import describe_environment
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import RecordStore, load_records
from lorabench.runs import place, processes
from lorabench.runs.context import RunContext
from lorabench.runs.executors import devices as devices_module
from lorabench.runs.leases import lease_path
from lorabench.runs.messages import Report, WorkerSetup
from lorabench.runs.processes import Received, WorkerProcess
from lorabench.runs.requests import Requests
from lorabench.runs.strategy import Request, Standing, Strategy
from lorabench.runs.task import RunTask, TaskOutcome, TaskState
from lorabench.runs.view import RunView
from lorabench.trackers.make import make_trackers
from tests.runs.conftest import ExperimentWriter
from tests.runs.test_survival import finish, results, start, wait_for
from tests.runs.test_tasks import tasks

SIX = {"adapter": {"rank": [1, 2, 4]}, "seeds": [0, 1]}
CHILDREN = "lorabench.runs.serving"


def process_of(out: Path, run_id: str) -> int:
    """Of the worker that does the run."""
    return int(lock_owner(lease_path(RecordStore(out), run_id)).removeprefix("process "))


def workers() -> set[int]:
    """Processes of workers on this machine."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if CHILDREN in folder.joinpath("cmdline").read_text(encoding="utf-8"):
                found.add(int(folder.name))
        except OSError:
            continue
    return found


class Watching(RunView):
    """Keeps what it is told, and calls `on_step` with the run and the step."""

    def __init__(self, on_step: Callable[[str, int], None] = lambda run_id, step: None) -> None:
        self.on_step = on_step
        self.said: list[str] = []
        self.phases: list[str] = []
        self.started: list[str] = []

    def worker(self, name: str) -> RunView:
        return _OfWorker(self)

    def message(self, text: str) -> None:
        self.said.append(text)


class _OfWorker(RunView):
    def __init__(self, parent: Watching) -> None:
        self.parent = parent
        self.run_id = ""

    def start_run(self, run_id: str, index: int, steps: int = 0) -> None:
        self.run_id = run_id
        self.parent.started.append(run_id)
        self.parent.on_step(run_id, 0)

    def progress(self, description: str, done: float, total: float | None) -> None:
        if not self.parent.phases or self.parent.phases[-1] != description:
            self.parent.phases.append(description)

    def step(self, step: int, total: int, loss: float, tokens_per_second: float) -> None:
        self.parent.on_step(self.run_id, step)


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_give_the_records_of_one(
    experiment: ExperimentWriter, tmp_path: Path
) -> None:
    path = experiment(**SIX)
    killed: list[str] = []

    def kill(run_id: str, step: int) -> None:
        if step and not killed:
            killed.append(run_id)
            os.kill(process_of(tmp_path / "two", run_id), signal.SIGKILL)

    view = Watching(kill)
    outcome = lorabench.run(path, tmp_path / "two", trackers=["none"], devices="cpu:2", view=view)
    assert outcome.exit_code == 0
    assert outcome.counts.sentence() == "6 of 6 runs completed"
    (death,) = [text for text in view.said if "was ended by SIGKILL" in text]
    assert re.search(rf"the process that did {killed[0]} .* a new one goes on with it \(try 2 of 3\)", death)
    assert sorted(view.started) == sorted([*(record.run_id for record in outcome.records), killed[0]])
    scored = [phase for phase in view.phases if phase.startswith("scoring the base on")]
    assert len(scored) == len(set(scored)) == 2, "validation and test, by one worker each"

    lorabench.run(path, tmp_path / "one", trackers=["none"])
    assert results(tmp_path / "two") == results(tmp_path / "one")
    environments = [record.environment for record in load_records(tmp_path / "two")]
    assert {environment.worker for environment in environments} == {"cpu 1", "cpu 2"}
    assert {(environment.device, environment.num_devices) for environment in environments} == {("cpu", 1)}


@pytest.mark.slow
def test_a_run_that_kills_every_worker_fails_and_the_others_do_not(
    experiment: ExperimentWriter, tmp_path: Path
) -> None:
    path = experiment()
    doomed = lorabench.plan(path).runs[0].run_id

    def kill(run_id: str, step: int) -> None:
        if run_id == doomed and step == 0:
            os.kill(process_of(tmp_path / "out", run_id), signal.SIGKILL)

    view = Watching(kill)
    outcome = lorabench.run(path, tmp_path / "out", trackers=["none"], devices="cpu:1", view=view)
    assert outcome.exit_code == 1
    assert outcome.counts.sentence() == "1 of 2 runs completed; 1 failed"
    assert view.started.count(doomed) == devices_module.MOST_TRIES == 3
    record = RecordStore(tmp_path / "out").get(doomed)
    assert record.status is Status.FAILED
    assert record.status_reason == (
        "its worker's process died 3 times; the last one was ended by SIGKILL, as the system does where memory runs out"
    )
    again = lorabench.run(path, tmp_path / "out", trackers=["none"], view=RunView())
    assert again.counts.sentence() == "1 of 2 runs completed, 1 of them before; 1 failed before and not tried again"


@pytest.fixture
def long_run(experiment: ExperimentWriter) -> Path:
    training = {"learning_rate": 0.02, "batch_size": 1, "context_length": 32, "train_bytes": 6000, "epochs": 200}
    return experiment(training=training | {"precision": "fp32"})


def wait_until(condition: Callable[[], Any], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def children(process: subprocess.Popen[bytes]) -> set[int]:
    """The workers that a command has started."""
    parents = {pid: Path(f"/proc/{pid}/stat") for pid in workers()}
    return {pid for pid, stat in parents.items() if int(stat.read_text().rpartition(")")[2].split()[1]) == process.pid}


@pytest.mark.slow
def test_workers_end_when_their_command_is_killed_and_when_it_is_asked_to_stop(long_run: Path, tmp_path: Path) -> None:
    process = start(long_run, tmp_path / "out", "--devices", "cpu:2")
    assert wait_for(process, b"training", 200)
    assert wait_until(lambda: len(load_metrics(tmp_path / "out")) == 2, 60)
    orphans = children(process)
    assert len(orphans) == 2
    process.kill()
    finish(process)
    assert wait_until(lambda: not orphans & workers(), 15)
    assert {record.status for record in load_records(tmp_path / "out")} == {Status.CANCELLED}

    process = start(long_run, tmp_path / "out", "--devices", "cpu:2")
    assert wait_for(process, b"going on after step", 200)
    started = children(process)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert process.returncode == 1
    assert "0 of 2 runs completed; 2 cancelled" in output
    assert "Stopped; the same command goes on where it stopped." in output
    assert not started & workers()


def load_metrics(out: Path) -> list[Path]:
    """Of the runs that have done a step."""
    return [path for path in out.glob("runs/*/metrics.jsonl") if path.stat().st_size]


def test_where_runs_are_done_is_said_once(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path = experiment()
    for options, sentence in (
        ({"devices": "cpu:2", "device": "cpu"}, "--device cpu and --devices cpu:2 exclude each other"),
        ({"devices": "cpu:2", "executor": "other"}, "--devices cpu:2 and --executor other exclude each other"),
        ({"executor": "devices"}, "--executor devices: give --devices, such as all, 0,1 or cpu:2"),
        ({"devices": "cpu:0"}, "--devices cpu:0: 0 workers are not accepted"),
    ):
        with pytest.raises(InputError, match=re.escape(sentence)):
            lorabench.run(path, tmp_path / "out", trackers=["none"], **options)
    assert not (tmp_path / "out").exists()


class _Scripted:
    """Stands for a worker's process: at each task it reports what `script` gives, and ends where that is None."""

    script: ClassVar[list[Report | None]] = []
    made: ClassVar[list[_Scripted]] = []
    has_reported, was_killed = True, True

    def __init__(self, device: object, setup: WorkerSetup, inbox: Any, overhear: object) -> None:
        self.setup, self.inbox, self.is_closed = setup, inbox, False
        self.made.append(self)

    def submit(self, task: RunTask) -> None:
        assert task.options.device == self.setup.device == "cpu"
        self.inbox.put(Received(cast("WorkerProcess", self), self.script.pop(0)))

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.inbox.put(Received(cast("WorkerProcess", self), None))

    def wait(self, seconds: float) -> None:
        assert self.is_closed

    def how_it_ended(self) -> str:
        return "ended"


def test_a_worker_that_somebody_else_stopped_has_died(
    experiment: ExperimentWriter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_context: Any,
    finished: RunRecord,
) -> None:
    """Its run was cancelled, though the user of the command did not ask for that: it is taken up again."""
    (task,) = tasks(experiment(adapter={"rank": 2}), tmp_path / "out")
    cancelled = finished.model_copy(update={"status": Status.CANCELLED})
    outcomes = [
        TaskOutcome(run_id=task.run_id, state=TaskState.DONE, record=cancelled),
        TaskOutcome(run_id=task.run_id, state=TaskState.UNNEEDED),
    ]
    monkeypatch.setattr(devices_module, "WorkerProcess", _Scripted)
    monkeypatch.setattr(_Scripted, "script", [None, *(Report(outcome=outcome) for outcome in outcomes)])
    monkeypatch.setattr(_Scripted, "made", [])
    view = Watching()
    executor = devices_module.EXECUTOR.at("cpu:2")(make_context(view))
    assert executor.num_free == 2
    executor.submit(task)
    assert executor.num_free == 1
    outcome = executor.next_outcome()
    assert (outcome.state, outcome.record) == (TaskState.DONE, finished), "it was written just before the last death"
    assert executor.num_free == 2
    assert [text.rpartition("(")[2] for text in view.said] == ["try 2 of 3)", "try 3 of 3)"]
    assert len(_Scripted.made) == 3
    executor.stop()
    assert _Scripted.made[-1].is_closed


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[[RunView], RunContext]:
    """Of a command that writes to `tmp_path / "out"`."""

    def make(view: RunView) -> RunContext:
        device = choose_device("cpu")
        store = RecordStore(tmp_path / "out")
        environment = describe_environment(device, ["lorabench"])
        return RunContext(store, make_trackers("none", tmp_path), view, device, environment, bool)

    return make


def test_several_workers_get_what_is_asked_for_in_the_best_order(experiment: ExperimentWriter, tmp_path: Path) -> None:
    """Unless the strategy's own order counts; what other processes held comes first."""
    found = {task.run_id: task for task in tasks(experiment(adapter={"rank": [1, 2, 4]}), tmp_path)}
    first, second, third = found
    seconds = {first: 1.0, second: 3.0, third: 2.0}

    class InOrder:
        def __init__(self) -> None:
            self.left = [*found]

        def tell(self, standing: Standing) -> None:
            raise AssertionError

        def ask(self) -> Request | None:
            return Request(self.left.pop(0)) if self.left else None

    class InAnyOrder(InOrder):
        in_any_order = True

    def order(strategy: Strategy, num_workers: int) -> list[str]:
        requests = Requests(strategy, found, seconds, num_workers)
        requests.put_back([Request("held")])
        return [request.run_id for request in iter(lambda: requests.next(None, []), None) if request is not None]

    assert order(InAnyOrder(), 2) == ["held", second, third, first]
    assert order(InAnyOrder(), 1) == order(InOrder(), 2) == ["held", first, second, third]


def test_what_a_machine_lacks_for_so_many_workers_is_said(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = lorabench.plan(experiment(), device="cpu")
    each = max(run.estimated_memory_bytes for run in planned.runs)
    monkeypatch.setattr(place, "num_cores", lambda: 4)
    monkeypatch.setattr(place, "memory_bytes", lambda: 3 * each)
    assert place.worker_warnings(planned, "cpu:3") == []
    assert [sentence.split(";")[1] for sentence in place.worker_warnings(planned, "cpu:5")] == [
        " fewer workers are safer",
        " more than one a core gains nothing",
    ]


def test_a_worker_that_cannot_start_ends_the_command(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_COMMAND", (sys.executable, "-c", "raise ImportError('no such library')"))
    sentence = (
        r"cpu \d: the worker could not start; its process ended with exit code 1 \(ImportError: no such library\)"
    )
    with pytest.raises(EnvironmentProblem, match=sentence):
        lorabench.run(experiment(), tmp_path / "out", trackers=["none"], devices="cpu:2", view=RunView())
    assert load_records(tmp_path / "out") == []
