"""Executor: runs as tasks of a Ray cluster, whose nodes need nothing of this machine's disks."""

from __future__ import annotations

import shlex
import time
import uuid
from collections import Counter, deque
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lorabench.core.device import Device
from lorabench.core.errors import DiskError, EnvironmentProblem, InputError
from lorabench.core.redaction import without_secrets
from lorabench.records.provenance import running_code_sha256
from lorabench.records.schema import Status
from lorabench.records.store import DamagedRecordError
from lorabench.runs.cluster import ray_post
from lorabench.runs.cluster.arrivals import Arrival
from lorabench.runs.cluster.jobs import Job, Letter
from lorabench.runs.cluster.luggage import base_score_files, check_travels, run_files, shared_files
from lorabench.runs.cluster.parcels import Parcel, pack
from lorabench.runs.cluster.tracking import track_again
from lorabench.runs.context import RunContext
from lorabench.runs.draft import Draft
from lorabench.runs.leases import lease_path, try_lease
from lorabench.runs.messages import show
from lorabench.runs.task import RunTask, SharedInputs, TaskOutcome, TaskState

MOST_LOSSES = 3
"""Of nodes or their processes at one run; then it has failed."""
LOOK_SECONDS = 0.25
"""Between two looks for what nodes have sent."""
COUNT_SECONDS = 5.0
"""Between two counts of the nodes."""
NUM_WAITING = 1
"""Tasks beyond those that the nodes take at once, so that a cluster that grows by need does."""


@dataclass(frozen=True)
class RayKind:
    """Makes the executor, for the cluster at an address, or one of this machine alone."""

    address: str | None = None

    def at(self, address: str) -> RayKind:
        """The same for the cluster at `address`."""
        return replace(self, address=address)

    def find_device(self, name: str | None) -> Device:
        """What one of the nodes computes on: a GPU where one has any. Raises InputError, EnvironmentProblem."""
        if name not in (None, "cpu", "cuda"):
            raise InputError(f"device: {name} is not accepted with --executor ray; accepted: cpu, cuda")
        ray_post.join(self.address)
        import ray

        wanted = name or ("cuda" if ray_post.largest("GPU") >= 1 else "cpu")
        _check_devices(wanted)
        describe = ray.remote(ray_post.describe_node).options(num_cpus=1, num_gpus=1 if wanted == "cuda" else 0)
        device: Device = ray.get(describe.remote(wanted))
        return device

    def __call__(self, context: RunContext) -> RayExecutor:
        """Join the cluster."""
        return RayExecutor(context, self.address)


def _check_devices(wanted: str) -> None:
    """Raise InputError where no node has what was asked for, and Ray would wait for one for ever."""
    what, name = ("a GPU", "GPU") if wanted == "cuda" else ("a processor", "CPU")
    if ray_post.largest(name) < 1:
        raise InputError(f"device: {wanted} was asked for, but no node of the Ray cluster has {what}; add such a node")


@dataclass
class _UnderWay:
    """A task that a node has, or waits for one."""

    task: RunTask
    arrival: Arrival
    lease: ExitStack
    node: str = ""
    shown: RunContext | None = None
    replies: list[Any] = field(default_factory=list)


class RayExecutor:
    """Holds the lease of each run that a node does; hands out as many as the nodes that are alive take."""

    def __init__(self, context: RunContext, address: str | None) -> None:
        self._context = context
        ray_post.join(address)
        import ray

        self._ray = ray
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self._mailbox = ray.remote(ray_post.Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self._session = uuid.uuid4().hex[:16]
        self._under_way: dict[Any, _UnderWay] = {}
        """By the reference of what the Ray task will return."""
        self._over: deque[TaskOutcome] = deque()
        self._losses: Counter[str] = Counter()
        self._packed: dict[tuple[str, Path], tuple[tuple[int, int, int], Parcel]] = {}
        self._shared: dict[tuple[SharedInputs, int], tuple[SharedInputs, list[tuple[str, Path]]]] = {}
        self._places = (0, -COUNT_SECONDS)
        """As counted last, and when."""
        self._has_told_to_stop = False

    @property
    def num_free(self) -> int:
        """See Executor."""
        count, counted_at = self._places
        if time.monotonic() - counted_at >= COUNT_SECONDS:
            needs = {"GPU" if self._context.device.is_gpu else "CPU": 1.0}
            self._places = count, _ = ray_post.num_places(needs), time.monotonic()
        return max(0, count + NUM_WAITING - len(self._under_way) - len(self._over))

    def _needs(self, task: RunTask) -> dict[str, float]:
        """What a node has to have free for the task; never more memory than the largest node has."""
        if self._context.device.is_gpu:
            return {"num_cpus": 1, "num_gpus": 1}
        return {"num_cpus": 1, "memory": min(task.memory_bytes, ray_post.largest("memory"))}

    def submit(self, task: RunTask) -> None:
        """See Executor."""
        check_travels(task)
        lease = ExitStack()
        try:
            mine = lease.enter_context(try_lease(lease_path(self._context.store, task.run_id)))
        except DiskError as problem:
            self._over.append(TaskOutcome(run_id=task.run_id, state=TaskState.LEFT_ALONE, problem=str(problem)))
            return
        if mine:
            self._send(task, lease)
        else:
            self._over.append(TaskOutcome(run_id=task.run_id, state=TaskState.HELD))

    def _send(self, task: RunTask, lease: ExitStack) -> None:
        """Start a Ray task, with what the head holds of the run now."""
        store, key = self._context.store, uuid.uuid4().hex[:16]
        wanted = task.inputs, task.spec.training.train_bytes
        if wanted not in self._shared:
            self._shared[wanted] = shared_files(*wanted, self._context.progress)
        inputs, files = self._shared[wanted]
        own = run_files(store, task.run_id)
        parcels = [self._pack(place, path) for place, path in (*files, *base_score_files(store))]
        parcels += [pack(path, place, self._ray.put) for place, path in own]
        update = {"inputs": inputs, "question": without_secrets(task.question)}
        update["references"] = {name: without_secrets(value) for name, value in task.references.items()}
        update["options"] = task.options.model_copy(
            update={"output_dir": Path("/"), "device": self._context.device.type}
        )
        job = Job(
            key=key,
            session=self._session,
            task=task.model_copy(update=update).model_dump_json(),
            parcels=tuple(parcels),
            command=tuple(shlex.split(self._context.environment.command)),
            code_sha256=running_code_sha256(),
        )
        do = self._ray.remote(ray_post.do_ray_job).options(max_retries=0, name=task.run_id, **self._needs(task))
        arrival = Arrival(store, task.run_id, key, {place for place, _ in own})
        arrival.forget()
        self._under_way[do.remote(job, self._mailbox)] = _UnderWay(task, arrival, lease)

    def _pack(self, place: str, path: Path) -> Parcel:
        """The file in the object store, put there once for as long as it stays as it is."""
        state = path.stat()
        stamp = state.st_size, state.st_mtime_ns, state.st_ino
        packed = self._packed.get((place, path))
        if packed is None or packed[0] != stamp:
            packed = self._packed[place, path] = stamp, pack(path, place, self._ray.put)
        return packed[1]

    def next_outcome(self) -> TaskOutcome:
        """See Executor."""
        while not self._over:
            self._look()
        return self._over.popleft()

    def _look(self) -> None:
        """Wait a moment, and see what has arrived and what is over."""
        if self._context.should_stop() and not self._has_told_to_stop:
            self._has_told_to_stop = True
            self._mailbox.stop.remote()
            for reference, under_way in self._under_way.items():
                if under_way.shown is None:  # no node has begun with it
                    self._ray.cancel(reference)
        ended, _ = self._ray.wait(list(self._under_way), timeout=LOOK_SECONDS)
        self._take_letters()
        for reference in ended:
            self._end(reference)

    def _take_letters(self) -> None:
        jobs = {under_way.arrival.key: under_way for under_way in self._under_way.values()}
        while letters := self._ray.get(self._mailbox.take.remote()):
            for letter in letters:
                if letter.job in jobs:  # what lost jobs still send is not taken
                    self._take(letter, jobs[letter.job])

    def _take(self, letter: Letter, under_way: _UnderWay) -> None:
        if under_way.shown is None:
            under_way.node, under_way.shown = letter.node, self._context.of_worker(letter.node)
        if letter.event is not None:
            show(letter.event, under_way.shown)
        if letter.piece is not None:
            under_way.arrival.take(letter.piece)
        if letter.delivery is not None:
            under_way.arrival.put_in_place(letter.delivery)

    def _end(self, reference: Any) -> None:
        """A Ray task has returned, or will not."""
        under_way = self._under_way.pop(reference)
        self._mailbox.release.remote(under_way.arrival.key)
        try:
            outcome = TaskOutcome.model_validate_json(self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:
            self._release(under_way)
            reason = " ".join(str(error.cause or error).split())[:300]
            raise EnvironmentProblem(
                f"{under_way.node or 'a node'} cannot do {under_way.task.run_id} ({reason}); install the head's "
                "lorabench and its requirements on every node"
            ) from error
        except self._ray.exceptions.RayError:
            self._lose(under_way)
            return
        has_left_files = outcome.record is not None or outcome.state is TaskState.PAUSED
        if has_left_files and not under_way.arrival.is_complete:
            self._lose(under_way)
            return
        self._release(under_way)
        if outcome.record is not None and outcome.state is TaskState.DONE:
            track_again(self._context.trackers, self._context.store, under_way.task, outcome.record)
        self._over.append(outcome)

    def _release(self, under_way: _UnderWay) -> None:
        under_way.arrival.forget()
        under_way.lease.close()

    def _lose(self, under_way: _UnderWay) -> None:
        """Do the run again elsewhere, from what has reached the head; not where the user wants to stop."""
        task, run_id = under_way.task, under_way.task.run_id
        self._losses[run_id] += 1
        where = under_way.node or "the node that was to do it"
        under_way.arrival.forget()
        self._places = 0, -COUNT_SECONDS
        if self._context.should_stop():
            self._release(under_way)
            self._over.append(TaskOutcome(run_id=run_id, state=TaskState.STOPPED))
        elif self._losses[run_id] < MOST_LOSSES:
            self._context.view.message(f"{run_id}: {where} was lost; the run goes on elsewhere")
            self._send(task, under_way.lease)
        else:
            self._fail(task, f"{where} was lost, as were {MOST_LOSSES - 1} before it")
            self._release(under_way)

    def _fail(self, task: RunTask, reason: str) -> None:
        store = self._context.store
        try:
            previous = store.read(task.run_id)
        except DamagedRecordError:
            previous = None
        draft = Draft(task, self._context.environment, previous)
        record = draft.finish(Status.FAILED, reason, environment_failed=True)
        store.write(record)
        self._over.append(TaskOutcome(run_id=task.run_id, state=TaskState.DONE, record=record))

    def stop(self) -> None:
        """Leave the cluster; what a node has not brought back yet is on the head up to its last checkpoint."""
        for reference, under_way in self._under_way.items():
            self._release(under_way)
            self._ray.cancel(reference, force=True)
        self._ray.kill(self._mailbox)
        ray_post.leave()


EXECUTOR = RayKind()
