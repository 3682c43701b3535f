"""Training curves: thinned for the page, and those of the best runs as a figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorabench.analysis.candidates import describe_specs
from lorabench.analysis.findings import Findings
from lorabench.core.errors import DiskError
from lorabench.core.formatting import number, plural
from lorabench.records.columns import STEP_FIGURES
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore
from lorabench.report.page_data import short
from lorabench.report.picture import Kind, Panel, Picture, Point, Series

MAX_POINTS = 200
"""Points of one curve in a small experiment; more runs have fewer each, so that the page stays small."""
POINTS_IN_ALL = 40_000
MIN_POINTS = 16
NUM_FIRST = 4
RISE = 1.25
"""A curve that rises above so many times what it began at leaves the axis, so that the others can be read."""
WILD = 10
"""Times the median: gradients with a larger norm than this are drawn on a logarithmic axis."""
TITLES = {
    "training": "Training and validation, bits per byte",
    "learning_rate": STEP_FIGURES["learning_rate"].heading,
    "gradient_norm": STEP_FIGURES["gradient_norm"].heading,
}


Curve = dict[str, Any]
"""Of one run, as the page's script reads it."""


@dataclass(frozen=True)
class Curves:
    """Thinned training curves with the validation scorings, in the order of the runs that were asked for."""

    payload: list[Curve]
    problems: list[str]
    """A sentence on each run whose steps are left out."""


def read_curves(records: Sequence[RunRecord], store: RecordStore) -> Curves:
    """The curve of every run; damaged ones are without steps."""
    points = max(MIN_POINTS, min(MAX_POINTS, POINTS_IN_ALL // max(1, len(records))))
    read = [_curve(record, store, points) for record in records]
    return Curves([curve for curve, _ in read], [problem for _, problem in read if problem is not None])


def first_runs(findings: Findings, records: Sequence[RunRecord]) -> list[int]:
    """Places among the records of the lowest configuration of each corpus, then of the next ones; else of any runs."""
    places = {record.run_id: place for place, record in enumerate(records)}
    candidates = [corpus.candidates[0] for corpus in findings.corpora if corpus.candidates]
    candidates += [item for corpus in findings.corpora[:1] for item in corpus.candidates[1:]]
    chosen = [places[item.run_ids[0]] for item in candidates if item.run_ids and item.run_ids[0] in places]
    return list(dict.fromkeys(chosen or range(len(records))))[:NUM_FIRST]


def curves_picture(findings: Findings, records: Sequence[RunRecord], store: RecordStore) -> Picture:
    """The curves of the first runs: losses, learning rate and norm of the gradient."""
    every, places = run_names(records), first_runs(findings, records)
    curves = [_curve(records[place], store, MAX_POINTS)[0] for place in places]
    names = [
        every[place] + (f" ({curve['note']})" if "note" in curve else "")
        for place, curve in zip(places, curves, strict=True)
    ]
    on_validation = curves_finding(findings, records)
    panels = []
    for field, title in TITLES.items():
        series: list[Series] = []
        for index, (name, curve) in enumerate(zip(names, curves, strict=True)):
            series += _series(name, index, zip(curve["step"], curve[field], strict=True))
            if field == "training":
                series += _series(f"{name}: validation", index, curve["evaluated"], is_dashed=True)
        if series:
            panel = Panel(title, "", Kind.LINES, "step", "", tuple(series))
            panels.append(_with_finding(panel, field, curves, on_validation))
    return Picture("training_curves", "Training curves", tuple(panels), (), ())


def _with_finding(panel: Panel, field: str, curves: Sequence[Curve], on_validation: str) -> Panel:
    if field == "learning_rate":
        return replace(panel, finding=rate_finding(curves))
    if field == "gradient_norm":
        is_wild = any(curve["norm_peak"] and curve["norm_peak"][0] > WILD for curve in curves)
        return replace(panel, finding=norm_finding(curves), is_log_y=is_wild)
    found = leaving(curves)
    finding = "; ".join(filter(None, (on_validation, found)))
    return replace(panel, finding=finding, most_y=_most(curves) if found else None)


def _most(curves: Sequence[Curve]) -> float:
    """Bits per byte at which the axis of these ends at most."""
    return max(_known([curve["most"] for curve in curves]), default=math.inf)


def leaving(curves: Sequence[Curve]) -> str:
    """How many curves rise so far that they leave the axis, and to what; empty where none does."""
    most = _most(curves)
    highest = [max(_losses(curve), default=0.0) for curve in curves]
    out = [value for value in highest if value > most]
    if not out:
        return ""
    verb = "leaves" if len(out) == 1 else "leave"
    return f"{len(out)} of {plural(len(curves), 'run')} {verb} the axis, up to {number(max(out), 2)}"


def rate_finding(curves: Sequence[Curve]) -> str:
    """How high learning rates are and where they end; empty where none is known."""
    rates = [known for curve in curves if (known := _known(curve["learning_rate"]))]
    if not rates:
        return ""
    highest, last = _between([max(known) for known in rates]), _between([known[-1] for known in rates])
    return f"The learning rate is at most {highest} and ends at {last}"


def norm_finding(curves: Sequence[Curve]) -> str:
    """How calm the gradients are: the largest norm beside its run's median; empty where none is known."""
    peaks = [curve["norm_peak"] for curve in curves if curve["norm_peak"]]
    if not peaks:
        return ""
    times, step = max(peaks)
    return f"The gradient norm is at most {times:g} times its run's median, at step {step}"


def _between(values: Sequence[float]) -> str:
    low, high = (f"{value:.3g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _losses(curve: Curve) -> list[float]:
    """All that the first panel draws of it."""
    return _known([*curve["training"], *(value for _, value in curve["evaluated"])])


def _series(name: str, colour: int, pairs: Iterable[Sequence[Any]], *, is_dashed: bool = False) -> list[Series]:
    """A line through what is known; none where nothing is."""
    points = tuple(Point(x, y) for x, y in pairs if x is not None and y is not None)
    return [Series(name, colour, points, is_dashed=is_dashed)] if points else []


def curves_finding(findings: Findings, records: Sequence[RunRecord]) -> str:
    """Whether training was long enough, by those configurations whose validation was scored along the run."""
    every = [item for corpus in findings.corpora for item in corpus.candidates]
    if not every:
        return "No run has a result yet"
    scored_along = {record.run_id for record in records if len(record.evaluations) > 1}
    known = [item for item in every if scored_along & {*item.run_ids}]
    if not known:
        return "Validation was scored only once a run, so whether it still fell is not known"
    falling = sum(item.still_falls is not None for item in known)
    if not falling:
        return f"Validation had levelled off at the end of all {plural(len(known), 'configuration')}"
    return f"Validation still fell at the end of {falling} of {plural(len(known), 'configuration')}"


def run_names(records: Sequence[RunRecord]) -> list[str]:
    """Each run in words: whatever sets it apart from the others."""
    specs = [record.spec for record in records]
    labels = describe_specs(specs)
    return [f"{label} on {spec.dataset}, seed {spec.seed}" for label, spec in zip(labels, specs, strict=True)]


def _bits_per_nat(record: RunRecord) -> float | None:
    """Bits per byte for a nat per token, by the tokens a byte of the validation text; None before that was scored.

    The training text's own share is not recorded, for of conversations only the answers are trained on.
    """
    scores = record.validation or record.base_validation
    return None if scores is None else scores.num_tokens / scores.num_bytes / math.log(2.0)


def _curve(record: RunRecord, store: RecordStore, max_points: int) -> tuple[Curve, str | None]:
    problem = None
    try:
        lines = store.metrics(record, max_points)
    except DiskError as error:
        lines, problem = [], f"{error}; until then it has no training curve"
    steps = [line for line in lines if line.get("kind") == "step" and short(line.get("step")) is not None]
    to_bits = _bits_per_nat(record)
    losses = [short(line.get("smoothed_loss")) for line in steps]
    curve: Curve = {"step": [line.get("step") for line in steps]}
    curve["training"] = [None if loss is None or to_bits is None else short(to_bits * loss) for loss in losses]
    for name in ("learning_rate", "gradient_norm"):
        curve[name] = [short(line.get(name)) for line in steps]
    curve["evaluated"] = [[item.step, short(item.validation.bits_per_byte)] for item in record.evaluations]
    base = None if record.base_validation is None else record.base_validation.bits_per_byte
    began = _known([*curve["training"][:1], base])
    curve["most"] = short(RISE * max(began)) if began else None
    curve["norm_peak"] = _norm_peak(curve["step"], curve["gradient_norm"])
    if steps and not store.has_checked_metrics(record):
        curve["note"] = "unfinished, unchecked"
    return curve, problem


def _norm_peak(steps: Sequence[int], norms: Sequence[float | None]) -> list[float] | None:
    """How many times the median the largest norm is, and at which step; None where none is known."""
    known = [(norm, step) for norm, step in zip(norms, steps, strict=True) if norm is not None]
    middle = statistics.median([norm for norm, _ in known]) if known else 0.0
    if not middle:
        return None
    largest, step = max(known)
    return [float(f"{largest / middle:.2g}"), step]
