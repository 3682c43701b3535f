"""What an experiment could detect on each corpus, before it is run. Imports no scipy, so that plans start quickly."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lorabench.analysis.detectable import Reach, detectable, find_reach, freedom_per_seed, split_of
from lorabench.analysis.spread import SPREAD_NAME, MeasuredSpread, Spreads, read_spreads, spread_between
from lorabench.corpora.planning import DatasetPlan
from lorabench.experiment.plan import Plan, PlannedRun
from lorabench.records.store import FINISHED, RecordStore


@dataclass(frozen=True)
class Detection:
    """The true differences that a design detects 80 times in a hundred on a corpus, in bits per byte."""

    corpus: str
    num_bytes: int
    """Of the validation text scored, about."""
    num_documents: int
    num_effective: float
    """Documents of one length that would tell as much."""
    num_seeds: int
    num_candidates: int
    configurations: float | None
    """Between two configurations of one model; None where there is one each, or one document."""
    best: float | None
    """By which the best of all must be below each of the others to be named alone."""
    models: float | None
    """Between two models; None where there is one."""
    is_measured: bool
    """Whether the spread of differences was measured in the output folder; else it is assumed."""
    are_lengths_known: bool
    """Whether the corpus was prepared before; else its documents' lengths are assumed."""
    reach: Reach | None = None
    """What would detect the difference asked for."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return asdict(self)


def known_spreads(plan: Plan, store: RecordStore) -> Spreads:
    """What the last report measured; measured now where runs are not in it."""
    kept = read_spreads(store.results_dir / SPREAD_NAME)
    planned = {(group.dataset.name, group.dataset.revision) for group in plan.groups}
    finished = [record for record in store.read_all()[0] if record.status in FINISHED]
    records = [record for record in finished if (record.spec.dataset, record.spec.dataset_revision) in planned]
    if {(record.spec.dataset, record.spec.dataset_revision) for record in records} <= set(kept):
        return kept
    from lorabench.analysis.deciding import measure_spreads

    return kept | measure_spreads(records, store)


def detections(plan: Plan, measured: Spreads, wanted: float | None = None) -> list[Detection]:
    """For every corpus that is trained on. `wanted` is a difference to be reached."""
    runs: dict[str, list[PlannedRun]] = {}
    datasets = {group.dataset.name: group.dataset for group in plan.groups}
    for group in plan.groups:
        runs.setdefault(group.dataset.name, []).extend(group.runs)
    budget = plan.experiment.evaluation.validation_bytes
    return [
        _detect(dataset, runs[name], budget, measured.get((name, dataset.revision)), wanted)
        for name, dataset in datasets.items()
    ]


def _detect(
    dataset: DatasetPlan,
    runs: Sequence[PlannedRun],
    budget: int,
    measured: MeasuredSpread | None,
    wanted: float | None,
) -> Detection:
    split = split_of(dataset.num_bytes["validation"], dataset.num_validation_documents, dataset.validation_lengths)
    scored = split.scored(budget)
    candidates = [run.spec for run in runs if run.spec.seed == runs[0].spec.seed]
    models = Counter(spec.model for spec in candidates)
    alike = Counter((spec.model, spec.adapter.method, repr(spec.training)) for spec in candidates)
    num_seeds = len({run.spec.seed for run in runs})
    rates = [spec.training.learning_rate for spec in candidates]
    within, is_measured = spread_between(False, rates, measured)
    between, are_models_measured = spread_between(True, rates, measured)
    freedom = freedom_per_seed(round(statistics.median(alike.values())), num_seeds)
    errors = split.errors(budget, within, num_seeds, freedom)
    of_models = split.errors(budget, between, num_seeds)
    has_pairs = max(models.values()) > 1
    reach = None
    if wanted is not None and len(candidates) > 1:
        spread, per_seed = (within, freedom) if has_pairs else (between, 1.0)
        reach = find_reach(split, budget, spread, num_seeds, per_seed, wanted)
    return Detection(
        corpus=dataset.name,
        num_bytes=dataset.bytes_within("validation", budget),
        num_documents=scored.num_documents,
        num_effective=round(scored.num_effective, 1),
        num_seeds=num_seeds,
        num_candidates=len(candidates),
        configurations=detectable(errors) if has_pairs else None,
        best=detectable(errors if has_pairs else of_models, len(candidates)) if len(candidates) > 1 else None,
        models=detectable(of_models) if len(models) > 1 else None,
        is_measured=is_measured if has_pairs else are_models_measured,
        are_lengths_known=bool(dataset.validation_lengths),
        reach=reach,
    )
