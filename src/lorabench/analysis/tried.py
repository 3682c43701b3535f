"""What was tried around a configuration: other rates, seeds without a result, training that was too short."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lorabench.analysis.findings import Candidate, Setting
from lorabench.analysis.pairing import Measured
from lorabench.analysis.validation import ValidationRun
from lorabench.core.formatting import listed, setting
from lorabench.experiment.schema import RunSpec
from lorabench.records.columns import axis_values
from lorabench.records.schema import Evaluation, Status

FLAT_BITS = 0.002
"""Bits per byte: a curve that falls by less in the last quarter of training is flat."""
_ENDED = {
    Status.DIVERGED: "diverged",
    Status.FAILED: "failed",
    Status.OUT_OF_MEMORY: "ran out of memory",
    Status.CANCELLED: "was cancelled",
}


def with_rate_edges(candidates: Sequence[Measured], unfinished: Sequence[ValidationRun]) -> tuple[Measured, ...]:
    """The candidates, lowest first as given, each with its `rate_edge`. A rate that diverged counts as tried."""
    rates: dict[tuple[Setting, ...], set[float]] = defaultdict(set)
    lowest: dict[tuple[Setting, ...], str] = {}
    for item in candidates:
        spec = item.runs[0].spec
        rates[_without_rate(spec)].add(spec.training.learning_rate)
        lowest.setdefault(_without_rate(spec), item.key)
    for run in unfinished:
        if run.status is Status.DIVERGED:
            rates[_without_rate(run.spec)].add(run.spec.training.learning_rate)

    def edge(item: Measured) -> str:
        row, rate = _without_rate(item.runs[0].spec), item.runs[0].spec.training.learning_rate
        if lowest[row] != item.key or len(rates[row]) < 2:
            return ""
        return {max(rates[row]): "largest", min(rates[row]): "smallest"}.get(rate, "")

    return tuple(replace(item, shown=replace(item.shown, rate_edge=edge(item))) for item in candidates)


def _without_rate(spec: RunSpec) -> tuple[Setting, ...]:
    values = axis_values(spec) | {"learning_rate": None}
    return (spec.model_revision, *values.values())


def still_falls(curves: Sequence[Sequence[Evaluation]]) -> float | None:
    """By how much validation fell in the last quarter of training, mean over seeds; None where flat or unknown."""
    falls = []
    for curve in curves:
        earlier = [item for item in curve[:-1] if item.step <= 0.75 * curve[-1].step]
        if not earlier:
            continue
        last, before = curve[-1].validation.bits_per_byte, earlier[-1].validation.bits_per_byte
        falls.append(before - last if last < curve[-2].validation.bits_per_byte else 0.0)
    fall = statistics.fmean(falls) if falls else 0.0
    return fall if fall >= FLAT_BITS else None


def ended_without_result(candidate: Candidate) -> str:
    """`diverged on 1 of 3 seeds`; empty where every seed gave a result."""
    counts: dict[str, int] = defaultdict(int)
    for status in candidate.without_result.values():
        counts[_ENDED.get(status, str(status))] += 1
    return " and ".join(f"{how} on {count} of {candidate.num_seeds_tried} seeds" for how, count in counts.items())


def is_unreliable(candidate: Candidate) -> bool:
    """Whether a seed of it ended badly, so that its figure is that of the seeds that went well."""
    return any(status is not Status.CANCELLED for status in candidate.without_result.values())


def diverged_beside(candidate: Candidate, runs: Sequence[ValidationRun], unfinished: Sequence[ValidationRun]) -> str:
    """That the rate diverged with other settings of the model, in a sentence; empty where it did not."""
    own, rate = set(candidate.run_ids), candidate.settings["learning_rate"]
    model = next(run.spec.model for run in runs if run.run_id in own)
    mine = next(_without_rate(run.spec) for run in runs if run.run_id in own)
    at_rate = (run for run in (*runs, *unfinished) if run.spec.training.learning_rate == rate)
    beside = [run for run in at_rate if run.spec.model == model and _without_rate(run.spec) != mine]
    diverged = sum(run.status is Status.DIVERGED for run in beside)
    if not diverged:
        return ""
    return f"Its rate {setting(rate)} diverged in {diverged} of {len(beside)} runs of {model} with other settings"


def edges_by_rank(candidates: Sequence[Candidate]) -> list[str]:
    """For each rank whose lowest figure is at the end of the rates tried with it, that the best may lie beyond."""
    at_end: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for item in candidates:
        if item.rate_edge:
            rank, method = item.settings["rank"], item.settings["method"]
            name = f"method {method}" if rank is None else f"rank {rank}"
            at_end[item.rate_edge, setting(item.settings["learning_rate"])][name] = None
    return [
        f"With {listed(list(names))} the lowest is at the {edge} rate tried ({rate}); the best may lie beyond it"
        for (edge, rate), names in at_end.items()
    ]


def wider_rates(candidates: Sequence[Candidate]) -> list[str]:
    """What to try next, where lowest figures are at one end of the rates tried.

    Of candidates that may be the best. Where a model has them at both ends the rates were wide enough.
    """
    models: dict[str, dict[str, float]] = {"largest": {}, "smallest": {}}
    for item in candidates:
        rate = item.settings["learning_rate"]
        if item.rate_edge and isinstance(rate, float):
            choose = max if item.rate_edge == "largest" else min
            found = models[item.rate_edge]
            found[item.model] = choose(rate, found.get(item.model, rate))
    at_both = models["largest"].keys() & models["smallest"].keys()
    at_one = {
        edge: {name: rate for name, rate in found.items() if name not in at_both} for edge, found in models.items()
    }
    return [_wider(edge, found) for edge, found in at_one.items() if found]


def _wider(edge: str, found: Mapping[str, float]) -> str:
    rates = sorted(found.values())
    shown = setting(rates[-1] if edge == "largest" else rates[0])
    side = "above" if edge == "largest" else "below"
    return f"Try learning rates {side} {shown} for {listed(sorted(found))}: lowest figures are at the {edge} tried"
