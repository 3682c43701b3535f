"""What an output folder already holds of a plan, and what is left to be done of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorabench.core.device import Device
from lorabench.experiment.estimates import estimate_run, start_seconds
from lorabench.experiment.generate import answer_work
from lorabench.experiment.identity import run_id
from lorabench.experiment.measurements import MeasurementRequest
from lorabench.experiment.plan import Group, Plan, PlannedRun
from lorabench.experiment.workload import Workload
from lorabench.records.measurements import is_measurable, missing_in
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import RecordStore

RETRIED = frozenset({Status.FAILED, Status.OUT_OF_MEMORY, Status.DIVERGED})
"""Done again only when asked for."""


@dataclass(frozen=True)
class Remaining:
    """A plan against an output folder. Nothing is hashed here: `lorabench run` checks files before it trusts them."""

    num_finished: int
    """Runs of which nothing is missing."""
    to_measure: Mapping[str, MeasurementRequest]
    """By run id: what is missing of finished runs. They are measured, not trained again."""
    num_to_retry: int
    """Runs that did not complete, and are done again only with `--retry failed`."""
    num_to_do: int
    estimated_seconds: float
    """Of what the same command would do now; 0 where a search decides on the way how much that is."""

    @property
    def is_untouched(self) -> bool:
        """Whether everything is still to be done."""
        return not (self.num_finished or self.to_measure or self.num_to_retry)

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {
            "num_finished": self.num_finished,
            "num_to_measure": len(self.to_measure),
            "num_to_retry": self.num_to_retry,
            "num_to_do": self.num_to_do,
            "estimated_seconds": round(self.estimated_seconds, 1),
            "to_measure": {
                run: {
                    "also_on": list(request.also_on),
                    "samples": request.samples,
                    "tasks": list(request.tasks),
                    "generate": [] if request.answers is None else list(request.answers.metrics),
                }
                for run, request in self.to_measure.items()
            },
        }


def find_remaining(plan: Plan, store: RecordStore) -> Remaining:
    """Read the records of the plan's runs; a damaged one counts as none."""
    records = {record.run_id: record for record in store.read_all()[0]}
    is_search = plan.experiment.search is not None and plan.experiment.search.leaves_runs_out
    num_finished = num_to_retry = num_to_do = 0
    to_measure: dict[str, MeasurementRequest] = {}
    seconds = 0.0
    for group in plan.groups:
        measured: list[tuple[PlannedRun, MeasurementRequest]] = []
        to_do = []
        for run in group.runs:
            record = records.get(run.run_id)
            if record is not None and record.status is Status.STOPPED_EARLY:
                num_finished += 1
            elif record is not None and is_measurable(record):
                if missing := missing_in(record, run.measures):
                    measured.append((run, missing))
                else:
                    num_finished += 1
            elif record is not None and record.status in RETRIED:
                num_to_retry += 1
            elif not is_search or run.spec.seed in plan.experiment.seeds:
                to_do.append(run)
        num_to_do += len(to_do)
        to_measure |= {run.run_id: missing for run, missing in measured}
        seconds += sum(run.estimated_seconds for run in to_do) + _measuring_seconds(group, measured, plan.device)
        seconds += group.estimated_base_seconds if to_do else 0.0
    seconds += start_seconds(plan.device) if seconds else 0.0
    return Remaining(num_finished, to_measure, num_to_retry, num_to_do, 0.0 if is_search else seconds)


def measuring_seconds(group: Group, run: PlannedRun, missing: MeasurementRequest, device: Device) -> float:
    """About how long measuring a finished adapter takes."""
    return estimate_run(group.model.shape, _measuring(group, run, missing), device).seconds


def _measuring_seconds(group: Group, runs: Sequence[tuple[PlannedRun, MeasurementRequest]], device: Device) -> float:
    """Of all of a group's finished adapters, and of the base on what the first of them lacks."""
    seconds = sum(measuring_seconds(group, run, missing, device) for run, missing in runs)
    for run, missing in runs[:1]:
        base = replace(_measuring(group, run, missing), adapter=None)
        seconds += estimate_run(group.model.shape, base, device).seconds
    return seconds


def _measuring(group: Group, run: PlannedRun, missing: MeasurementRequest) -> Workload:
    corpora = {plan.name: plan for plan in group.also_on}
    budget = run.spec.evaluation.validation_bytes
    num_bytes = sum(corpora[name].bytes_within("validation", budget) for name in missing.also_on)
    tokens = group.model.tokens_in(num_bytes)
    return replace(
        run.workload,
        train_tokens=0,
        evaluation_tokens=tokens,
        writes_samples=missing.samples > 0,
        answers=answer_work(missing.answers, group.dataset),
    )


def with_recorded_ids(plan: Plan, store: RecordStore) -> Plan:
    """The plan with the ids under which runs were recorded before ids were hashes of what differs from the defaults.

    Such a record is that of a planned run if its specification has the planned id and it trained what is planned.
    """
    records = store.read_all()[0]
    planned = {run.run_id: run for run in plan.runs}
    for record in records:
        planned.pop(record.run_id, None)  # recorded under today's id
    recorded = {
        today: record.run_id
        for record in records
        if (today := run_id(record.spec)) in planned and _trained_as_planned(record, planned[today])
    }
    groups = tuple(
        replace(group, runs=tuple(replace(run, run_id=recorded.get(run.run_id, run.run_id)) for run in group.runs))
        for group in plan.groups
    )
    return replace(plan, groups=groups) if recorded else plan


def _trained_as_planned(record: RunRecord, planned: PlannedRun) -> bool:
    return record.adapter is None or record.adapter.trainable_parameters == planned.trainable_parameters
