"""What an experiment would take on devices that are not here: hours, money and disk, all of them estimates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lorabench.core.cards import Card
from lorabench.core.errors import InputError
from lorabench.experiment.layout import is_enough
from lorabench.experiment.plan import Plan
from lorabench.runs.order import Job, makespan


@dataclass(frozen=True)
class Elsewhere:
    """A plan on `num_devices` of a card."""

    card: Card
    num_devices: int
    seconds: float
    """Until the last run has ended, runs given out as the scheduler gives them out."""
    least_seconds: float
    """No order ends sooner: all work over all devices, or the longest run."""
    cost: float | None
    """Of all devices until then; None where no price was given."""
    disk_bytes: int
    too_large: tuple[str, ...]
    """Runs that are not expected to fit into the card's memory."""

    @property
    def device_hours(self) -> float:
        """Of all devices, those that wait for the last run included."""
        return self.num_devices * self.seconds / 3600

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {
            "card": self.card.name,
            "num_devices": self.num_devices,
            "estimated_seconds": round(self.seconds, 1),
            "least_seconds": round(self.least_seconds, 1),
            "device_hours": round(self.device_hours, 3),
            "cost": None if self.cost is None else round(self.cost, 2),
            "disk_bytes": self.disk_bytes,
            "too_large": list(self.too_large),
        }


def jobs_of(plan: Plan) -> list[Job]:
    """The plan's runs as the scheduler orders them; the longest of a group also scores the base for the others."""
    jobs = []
    for group in plan.groups:
        seconds = {run.run_id: run.estimated_seconds for run in group.runs}
        first = max(seconds, key=seconds.__getitem__)
        seconds[first] += group.estimated_base_seconds
        jobs += [Job.of(run.run_id, run.spec, seconds[run.run_id]) for run in group.runs]
    return jobs


def least_seconds(jobs: list[Job], num_devices: int) -> float:
    """What no order of the jobs can undercut."""
    return max(sum(job.seconds for job in jobs) / num_devices, max((job.seconds for job in jobs), default=0.0))


def plan_elsewhere(plan: Plan, card: Card, num_devices: int, price: float | None = None) -> Elsewhere:
    """Simulate the scheduler on a plan that was made for the card's device; `price` is that of a device hour.

    Raises InputError where there are fewer devices than share a run.
    """
    jobs, sharing = jobs_of(plan), plan.experiment.num_devices
    if sharing > num_devices:
        raise InputError(
            f"--on: {num_devices} × {card.name} are fewer than the {sharing} that share a run (training.devices); "
            f"give at least {sharing}"
        )
    seconds = makespan(jobs, num_devices // sharing)
    too_large = [run.run_id for run in plan.runs if not is_enough(card.memory_bytes, run.estimated_memory_bytes)]
    parts = [*plan.model_parts, *plan.dataset_parts]
    return Elsewhere(
        card=card,
        num_devices=num_devices,
        seconds=seconds,
        least_seconds=least_seconds(jobs, num_devices // sharing),
        cost=None if price is None else price * num_devices * seconds / 3600,
        disk_bytes=sum(part.disk_bytes for part in parts),
        too_large=tuple(too_large),
    )
