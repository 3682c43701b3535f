"""What became of an experiment, and of each of its runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorabench.records.deployment import DeploymentRecord
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import FINISHED


@dataclass(frozen=True)
class Counts:
    """The runs of an experiment, each counted once, by what became of it."""

    completed_now: int = 0
    completed_before: int = 0
    completed_elsewhere: int = 0
    """By another process, meanwhile."""
    failed_now: int = 0
    """Failed, out of memory or diverged."""
    failed_before: int = 0
    """And not tried again."""
    failed_elsewhere: int = 0
    stopped_early: int = 0
    """A strategy had seen enough of them."""
    cancelled: int = 0
    not_reached: int = 0
    """The command ended before their turn."""

    @classmethod
    def of(
        cls,
        run_ids: Sequence[str],
        records: Mapping[str, RunRecord],
        *,
        tried: Collection[str],
        skipped: Collection[str],
    ) -> Counts:
        """From the records that there are at the end, the runs that this command tried and those it never wanted."""
        counts = dict.fromkeys(vars(cls()), 0)
        for run_id in run_ids:
            counts[_fate(records.get(run_id), run_id in tried, run_id in skipped)] += 1
        return cls(**counts)

    @property
    def total(self) -> int:
        """All runs that the experiment asks for."""
        return sum(vars(self).values())

    @property
    def now(self) -> int:
        """That this command brought to an end."""
        return self.completed_now + self.failed_now

    @property
    def completed(self) -> int:
        """By whomever and whenever."""
        return self.completed_now + self.completed_before + self.completed_elsewhere

    def sentence(self) -> str:
        """How many completed, and what became of the others; the numbers add up."""
        words = f"{self.completed} of {self.total} runs completed"
        words += f", {self.completed_before} of them before" if self.completed_before else ""
        words += f", {self.completed_elsewhere} of them by another process" if self.completed_elsewhere else ""
        others = {
            "failed": self.failed_now,
            "failed before and not tried again": self.failed_before,
            "failed in another process": self.failed_elsewhere,
            "stopped early": self.stopped_early,
            "cancelled": self.cancelled,
            "not reached": self.not_reached,
        }
        return "; ".join([words, *(f"{count} {what}" for what, count in others.items() if count)])


def _fate(record: RunRecord | None, tried: bool, skipped: bool) -> str:
    """The field of `Counts` that a run belongs to."""
    if record is None or (record.goes_on and not tried):
        return "not_reached"
    when = "now" if tried else "before" if skipped else "elsewhere"
    if record.status is Status.COMPLETED:
        return f"completed_{when}"
    if record.status in (Status.CANCELLED, Status.STOPPED_EARLY):
        return record.status.value
    return f"failed_{when}"


@dataclass
class Outcome:
    """What became of an experiment."""

    records: list[RunRecord] = field(default_factory=list)
    """Of every run of the experiment that has one now."""
    num_runs: int = 0
    """That the experiment asks for."""
    num_skipped: int = 0
    """That were done before, or failed before and were not to be tried again."""
    counts: Counts = field(default_factory=Counts)
    num_unmeasured: int = 0
    """Completed runs that lack something the experiment asks to be measured; their notes say why."""
    cancelled: bool = False
    deployments: list[DeploymentRecord] = field(default_factory=list)
    """Forms of the recommended runs, where the experiment asks for them."""
    undeployed: list[str] = field(default_factory=list)
    """A sentence on each recommended run that could not be deployed at all."""
    results_dir: Path = Path()
    problems: Sequence[str] = ()
    """Records and files in the output folder that could not be used."""

    @property
    def exit_code(self) -> int:
        """0 when every run completed or was stopped early by its strategy, and everything was measured, else 1."""
        num_finished = sum(record.status in FINISHED for record in self.records)
        is_deployed = not self.undeployed and all(one.status is Status.COMPLETED for one in self.deployments)
        return 1 if num_finished < self.num_runs or self.num_unmeasured or self.cancelled or not is_deployed else 0
