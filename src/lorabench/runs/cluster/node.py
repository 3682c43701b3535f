"""A node's part: unpacks what a task needs, does it as `runs.worker` does, and sends the run's folder back.

Runs of one process share its loaded base. While a run trains, each new checkpoint is sent to the head with the run's
figures so far, so that another node can go on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from lorabench.core.device import choose_device
from lorabench.core.errors import CancelledError, DiskError, LorabenchError
from lorabench.core.locks import try_lock
from lorabench.core.machine import prepare_process
from lorabench.core.storage import cache_root, disk_error, read_regular, write_atomically
from lorabench.corpora.references import parts_of
from lorabench.records.provenance import describe_environment, running_code_sha256
from lorabench.records.store import METRICS_NAME, RecordStore
from lorabench.runs.cluster.jobs import Delivery, Job, Letter, Piece, Post
from lorabench.runs.cluster.luggage import (
    BASE_SCORES,
    CACHE,
    HUB,
    INBOX,
    RUN,
    base_score_files,
    files_of_run,
    hub_cache,
)
from lorabench.runs.cluster.parcels import read_pieces, unpack
from lorabench.runs.context import RunContext
from lorabench.runs.loaded import LoadedBase
from lorabench.runs.messages import ForwardingView
from lorabench.runs.task import RunTask, TaskOutcome, TaskState
from lorabench.runs.worker import do_task
from lorabench.trackers.jsonl import MARK_NAME
from lorabench.trackers.make import make_trackers

WATCH_SECONDS = 0.5
"""Between two looks for a new checkpoint, and for whether the command is to stop."""


def do_job(job: Job, post: Post) -> str:
    """Do the job's task; returns its TaskOutcome as JSON. What this node cannot do is said there, with its name."""
    task = RunTask.model_validate_json(job.task)
    try:
        outcome = _do(job, task, post)
    except LorabenchError as error:
        problem = f"{task.run_id}: {post.node}: {error}"
        outcome = TaskOutcome(run_id=task.run_id, state=TaskState.LEFT_ALONE, problem=problem)
    return outcome.model_dump_json()


def _do(job: Job, task: RunTask, post: Post) -> TaskOutcome:
    if job.code_sha256 != running_code_sha256():
        raise DiskError("another version of lorabench is installed here; install the head's on every node")
    office = _office(job.session)
    folder = office.store.run_dir(task.run_id)
    shutil.rmtree(folder, ignore_errors=True)
    sent = {parcel.place for parcel in job.parcels}
    for parcel in job.parcels:
        unpack(parcel, office.path_of(parcel.place, task.run_id), post.fetch)
    task = office.as_placed(task)
    courier = _Courier(job, post)
    view = ForwardingView(lambda event: courier.send(Letter(job.key, post.node, event=event)))
    context, loaded = office.open(task, job.command, post.node, view, courier)
    with courier.watching(folder):
        outcome = do_task(task, context, loaded)
    new = {place: path for place, path in base_score_files(office.store) if place not in sent}
    courier.deliver(new | {f"{RUN}/{name}": path for name, path in files_of_run(folder)}, is_whole=True)
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


class _Office:
    """What this process keeps between jobs of one command: its folders, its context, the loaded base."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = RecordStore(root / "output")
        self._inbox = cache_root() / "cluster" / "inbox"
        self._context: RunContext | None = None
        self._loaded: LoadedBase | None = None

    def path_of(self, place: str, run_id: str) -> Path:
        """Where a place lies on this node."""
        first, _, rest = place.partition("/")
        if first in (RUN, BASE_SCORES):
            return (self.store.run_dir(run_id) if first == RUN else self.store.base_scores_dir) / rest
        return {CACHE: cache_root(), HUB: hub_cache(), INBOX: self._inbox}[first] / rest

    def as_placed(self, task: RunTask) -> RunTask:
        """The task with paths of this node."""

        def here(path: str) -> str:
            return str(self.path_of(path, task.run_id)) if path.startswith(f"{INBOX}/") else path

        corpora = tuple(
            corpus
            if parts_of(corpus.reference).name and not parts_of(corpus.reference).files
            else corpus.model_copy(update={"reference": parts_of(corpus.reference).with_paths(here)})
            for corpus in task.inputs.corpora
        )
        inputs = task.inputs.model_copy(update={"model": here(task.inputs.model), "corpora": corpora})
        options = task.options.model_copy(update={"output_dir": self.store.output_dir, "trackers": ()})
        return task.model_copy(update={"inputs": inputs, "options": options})

    def open(
        self, task: RunTask, command: tuple[str, ...], node: str, view: ForwardingView, courier: _Courier
    ) -> tuple[RunContext, LoadedBase]:
        """What runs of this process are given; the head keeps trackers but for the run's own file."""
        if self._context is None or self._loaded is None:
            prepare_process()
            device = choose_device(task.options.device)
            environment = describe_environment(device, list(command))
            self._context = RunContext(
                store=self.store,
                trackers=make_trackers("none", self.store.output_dir),
                view=view,
                device=device,
                environment=environment.model_copy(update={"worker": node}),
                should_stop=courier.must_stop,
            )
            self._loaded = LoadedBase(self._context)
        self._context.view, self._context.should_stop, self._context.once = view, courier.must_stop, courier.once
        return self._context, self._loaded


@cache
def _office(session: str) -> _Office:
    """A folder of this process alone; those of processes that are gone are removed."""
    offices = cache_root() / "cluster" / "processes"
    root = offices / f"{session}-{os.getpid()}"
    _claim(root)
    for other in offices.iterdir():
        if other != root and (handle := try_lock(other / "lease")) is not None:
            shutil.rmtree(other, ignore_errors=True)
            os.close(handle)
    return _Office(root)


def _claim(root: Path) -> None:
    """Hold the folder's lock for as long as this process lives."""
    if try_lock(root / "lease") is None:
        raise DiskError(f"{root}: another process works there; give the same command again")


class _Courier:
    """Sends to the head from any thread, one file after the other; hears there whether the command is to stop."""

    def __init__(self, job: Job, post: Post) -> None:
        self._job = job
        self._post = post
        self._stop = threading.Event()
        self._delivering = threading.Lock()

    def must_stop(self) -> bool:
        """Whether the user stopped the command, or the head is gone."""
        return self._stop.is_set()

    def send(self, letter: Letter) -> None:
        """Hand over a letter; a head that is gone ends the run."""
        try:
            if self._post.send(letter):
                self._stop.set()
        except ConnectionError:
            self._stop.set()

    @contextmanager
    def once(self, target: Path, *, on_wait: Callable[[str], None]) -> Iterator[None]:
        """See `runs.context.Once`: over all nodes, whose makers the head knows. A head that is gone ends the run."""
        with self._needing_head():
            while (claim := self._post.claim(target.name, self._job.key)).owner is not None:
                on_wait("another node")
                time.sleep(WATCH_SECONDS)
        for name, content in (claim.files or {}).items():
            write_atomically(target.with_name(name), content)
        yield
        if claim.files is None:
            made = {path.name: read_regular(path) for path in target.parent.glob(f"{target.name}*")}
            with self._needing_head():
                self._post.give(target.name, made)

    @contextmanager
    def _needing_head(self) -> Iterator[None]:
        try:
            yield
        except ConnectionError:
            self._stop.set()
            raise CancelledError("stopped while asking the head, which is gone") from None

    def deliver(self, files: Mapping[str, Path], *, is_whole: bool) -> None:
        """Send files and their hashes. Raises DiskError where one cannot be read."""
        with self._delivering:
            self._deliver({place: read_pieces(path) for place, path in files.items()}, is_whole)

    def _deliver(self, files: Mapping[str, Iterator[bytes]], is_whole: bool) -> None:
        hashes = {}
        for place, pieces in files.items():
            digest = hashlib.sha256()
            try:
                for content in pieces:
                    digest.update(content)
                    self.send(Letter(self._job.key, self._post.node, piece=Piece(place, content)))
            except OSError as error:
                raise disk_error(Path(place), error) from None
            hashes[place] = digest.hexdigest()
        self.send(Letter(self._job.key, self._post.node, delivery=Delivery(hashes, is_whole)))

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Inside, what is new in the run's checkpoints is sent as it comes."""
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(folder, over), name="cluster-courier", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _watch(self, folder: Path, over: threading.Event) -> None:
        sent = _latest_checkpoint(folder)
        while not over.wait(WATCH_SECONDS):
            latest = _latest_checkpoint(folder)
            if latest is not None and latest != sent:
                with contextlib.suppress(OSError):  # a newer one has replaced it
                    self._send_checkpoint(folder, latest)
                    sent = latest
            self.send(Letter(self._job.key, self._post.node))

    def _send_checkpoint(self, folder: Path, checkpoint: Path) -> None:
        """The mark of the figures before the figures themselves: it holds of a longer file too."""
        contents = {path.name: read_regular(path) for path in sorted(checkpoint.iterdir())}
        mark, figures = read_regular(folder / MARK_NAME), read_regular(folder / METRICS_NAME)
        files = {f"{RUN}/{METRICS_NAME}": figures, f"{RUN}/{MARK_NAME}": mark}
        files |= {f"{RUN}/checkpoints/{checkpoint.name}/{name}": content for name, content in contents.items()}
        with self._delivering:
            self._deliver({place: iter([content]) for place, content in files.items()}, is_whole=False)


def _latest_checkpoint(folder: Path) -> Path | None:
    """The newest finished one of a run's folder."""
    return max(
        (path for path in (folder / "checkpoints").glob("step-*") if path.name[5:].isdigit()),
        key=lambda path: path.name,
        default=None,
    )
