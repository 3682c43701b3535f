"""One of the processes that share a run, each on a device of its own: `python -m lorabench.runs.rank FOLDER`.

Rank 0 does the task as a worker does it, and tells the command that started it how far it is. The others hold the same
base and adapter, and train as often as rank 0 begins to.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Client
from pathlib import Path

import torch

from lorabench.core.device import Device, choose_device
from lorabench.core.errors import LorabenchError
from lorabench.core.locks import waits_end_when
from lorabench.core.machine import num_cores, prepare_process
from lorabench.experiment.layout import Layout
from lorabench.records.schema import Environment
from lorabench.records.store import RecordStore
from lorabench.runs.context import RunContext
from lorabench.runs.launching import ENVIRONMENT, PIDS, SOCKET, TASK
from lorabench.runs.loaded import LoadedBase
from lorabench.runs.messages import ForwardingView, Problem, Report
from lorabench.runs.preparing import prepare
from lorabench.runs.rungs import checkpoints_of
from lorabench.runs.stages import attached, last_step
from lorabench.runs.task import RunTask
from lorabench.runs.view import RunView
from lorabench.runs.worker import do_task
from lorabench.trackers.make import make_trackers
from lorabench.training.loop import Hooks, train
from lorabench.training.ranks import BegunError, ProcessRanks, RankLostError

_GRACE_SECONDS = 60.0


def lead(task: RunTask, environment: Environment, device: Device, ranks: ProcessRanks, folder: Path) -> None:
    """Do the task, with the others' help, and tell what becomes of it. Stops where the command says so, or is gone."""
    connection, lock = Client(str(folder / SOCKET)), threading.Lock()

    def tell(report: Report) -> None:
        with lock:
            connection.send_bytes(report.model_dump_json().encode())

    def should_stop() -> bool:
        return connection.poll()

    trackers = make_trackers(
        task.options.trackers or "none", task.options.output_dir, upload_adapters=task.options.upload_adapters
    )
    try:
        with trackers, waits_end_when(should_stop):
            context = RunContext(
                store=RecordStore(task.options.output_dir),
                trackers=trackers,
                view=ForwardingView(lambda event: tell(Report(event=event))),
                device=device,
                environment=environment,
                should_stop=should_stop,
                ranks=ranks,
            )
            report = Report(outcome=do_task(task, context, LoadedBase(context)))
    except LorabenchError as error:
        report = Report(problem=Problem(sentence=str(error), exit_code=error.exit_code))
    tell(report)
    ranks.begin(None)


def follow(task: RunTask, environment: Environment, device: Device, ranks: ProcessRanks) -> None:
    """Train whenever rank 0 begins to, until it has nothing more to do."""
    context = RunContext(
        store=RecordStore(task.options.output_dir),
        trackers=make_trackers("none", task.options.output_dir),
        view=RunView(),
        device=device,
        environment=environment,
        should_stop=bool,
        ranks=ranks,
    )
    loaded = LoadedBase(context)
    layout = ranks.wait_for_begin()
    while layout is not None:
        try:
            with ranks.leaving_together():
                _train_along(task, context, loaded, layout)
            layout = ranks.wait_for_begin()
        except BegunError as begun:
            layout = begun.layout
        except Exception:  # rank 0 was told, and records it
            layout = ranks.wait_for_begin()


def _train_along(task: RunTask, context: RunContext, loaded: LoadedBase, layout: Layout) -> None:
    """One attempt."""
    work = loaded.open(task)
    work.shared.base.release_memory()
    prepared = prepare(task, work, layout, _ignore)
    with attached(task, work, _ignore) as held:
        checkpoints = checkpoints_of(task, context)
        hooks = Hooks(_ignore, _score_nothing, _ignore, _ignore, _ignore, should_stop=bool)
        until_step = last_step(task, prepared.course)
        base = work.shared.base
        base.checkpointing = layout.checkpointing
        train(base, held.adapter, prepared.text, prepared.course, checkpoints, hooks, until_step, context.ranks)


def _ignore(*values: object) -> None:
    """Rank 0 says it."""


def _score_nothing() -> tuple[dict[str, object], int]:
    return {}, 0


def main() -> int:
    """Take this process's place among those of the run in the folder."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command, which says what to do
    folder, rank = Path(sys.argv[1]), int(os.environ["LOCAL_RANK"])
    (folder / PIDS.replace("*", str(rank))).write_text(str(os.getpid()), encoding="ascii")
    task = RunTask.model_validate_json((folder / TASK).read_bytes())
    environment = Environment.model_validate_json((folder / ENVIRONMENT).read_bytes())
    device = choose_device("cpu" if task.options.device == "cpu" else f"cuda:{rank}")
    prepare_process()
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS") or num_cores()) // task.num_devices))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    if device.is_gpu:
        torch.cuda.set_device(rank)
    try:
        ranks = ProcessRanks(torch.device(str(device)))
        if ranks.is_first:
            lead(task, environment, device, ranks, folder)
        else:
            follow(task, environment, device, ranks)
        ranks.close()
    except RankLostError as error:
        print(f"lorabench: another rank has ended: {error}", file=sys.stderr)
        time.sleep(_GRACE_SECONDS)  # torch's launcher ends this process as soon as it has seen which one died
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
