"""Which of the waiting runs a free worker does next: the longest first, those of one base together where that pays."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from lorabench.core.worker_devices import WorkerDevice
from lorabench.experiment.identity import BaseVariant
from lorabench.experiment.plan import Plan
from lorabench.experiment.schema import RunSpec

Group = tuple[Hashable, Hashable]
"""A base and a corpus."""
LOADING_SECONDS = 5.0
"""What another base is taken to cost a worker."""


@dataclass(frozen=True)
class Job:
    """A run, as far as its turn depends on it."""

    run_id: str
    base: Hashable
    """What is loaded for it."""
    corpus: Hashable
    """What is read, and scored with the base, for it."""
    seconds: float
    """That it is expected to take."""

    @classmethod
    def of(cls, run_id: str, spec: RunSpec, seconds: float) -> Job:
        """Of a run."""
        return cls(run_id, BaseVariant.of(spec), (spec.dataset, spec.dataset_revision), seconds)

    @property
    def group(self) -> Group:
        """What it shares with other runs."""
        return self.base, self.corpus


@dataclass
class Waiting:
    """The runs that wait for one of `num_workers` workers. Taking one costs time only with the number of groups."""

    num_workers: int
    loading_seconds: float = LOADING_SECONDS
    _groups: dict[Group, list[tuple[float, int, Job]]] = field(default_factory=dict)
    """Heaps with the longest run first, of equal ones the one that came first."""
    _seconds: dict[Group, float] = field(default_factory=dict)
    """By group, of its runs."""
    _arrivals: Iterator[int] = field(default_factory=count)

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def add(self, job: Job) -> None:
        """Let it wait."""
        heapq.heappush(self._groups.setdefault(job.group, []), (-job.seconds, next(self._arrivals), job))
        self._seconds[job.group] = self._seconds.get(job.group, 0.0) + job.seconds

    def take(self, held: Job | None = None, busy: Collection[Job] = ()) -> Job:
        """The next run of a worker that did `held` last, while the others do `busy`.

        A run that might be the last to end if it waited goes first, unless one on the base at hand is as long but for
        the loading. Otherwise the worker stays with its corpus and base, or goes where most work waits per worker.
        """
        own = [group for group in self._groups if held is not None and group[0] == held.base]
        longest = self._longest(self._groups)
        if 2 * self.num_workers * self._longest_seconds(longest) > sum(self._seconds.values()):
            kept = self._longest(own) if own else longest
            pays = self._longest_seconds(longest) > self._longest_seconds(kept) + self.loading_seconds
            return self._pop(longest if pays else kept)
        if held is not None and held.group in own:
            return self._pop(held.group)
        return self._pop(self._fullest(own or self._groups, busy))

    def _longest_seconds(self, group: Group) -> float:
        return -self._groups[group][0][0]

    def _longest(self, groups: Iterable[Group]) -> Group:
        """The group of the longest run, of equal ones of that which came first."""
        return min(groups, key=lambda group: self._groups[group][0][:2])

    def _fullest(self, groups: Iterable[Group], busy: Collection[Job]) -> Group:
        """Where most work waits for each worker that would be at it: at the base first, then at the corpus."""
        on_base, on_group = Counter(job.base for job in busy), Counter(job.group for job in busy)
        of_base: defaultdict[Hashable, float] = defaultdict(float)
        for (base, _), seconds in self._seconds.items():
            of_base[base] += seconds

        def share(group: Group) -> tuple[float, float]:
            return of_base[group[0]] / (1 + on_base[group[0]]), self._seconds[group] / (1 + on_group[group])

        return max(groups, key=share)

    def _pop(self, group: Group) -> Job:
        job = heapq.heappop(self._groups[group])[2]
        self._seconds[group] -= job.seconds
        if not self._groups[group]:
            del self._groups[group], self._seconds[group]
        return job


def makespan(jobs: Iterable[Job], num_workers: int, loading_seconds: float = LOADING_SECONDS) -> float:
    """Seconds until `num_workers` workers have done all jobs, each as long as expected, bases loaded anew."""
    waiting = Waiting(num_workers, loading_seconds)
    for job in jobs:
        waiting.add(job)
    workers: list[tuple[float, int, Job | None]] = [(0.0, index, None) for index in range(num_workers)]
    while waiting:
        now, index, held = heapq.heappop(workers)
        busy = [job for ends_at, _, job in workers if job is not None and ends_at > now]
        job = waiting.take(held, busy)
        loading = 0.0 if held is not None and held.base == job.base else loading_seconds
        heapq.heappush(workers, (now + loading + job.seconds, index, job))
    return max(ends_at for ends_at, _, _ in workers)


def seconds_with_workers(plan: Plan, devices: Sequence[WorkerDevice]) -> float:
    """About how long a planned experiment takes with a worker on each device; those on the processor share it."""
    slowdown = 1 if plan.device.is_gpu else len(devices)
    jobs = [Job.of(run.run_id, run.spec, slowdown * run.estimated_seconds) for run in plan.runs]
    return plan.estimated_shared_seconds - LOADING_SECONDS + makespan(jobs, len(devices))  # which loads the first base
