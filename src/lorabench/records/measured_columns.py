"""Columns of what was measured of the finished adapter besides, which makes no figure of the run itself."""

from __future__ import annotations

import math
from collections.abc import Callable

from lorabench.records.column import Column, Form, Value
from lorabench.records.schema import RunRecord


def _task_figures(record: RunRecord) -> Value:
    """`name metric 0.5123 (base 0.4871)`, one after the other."""
    figures = [
        f"{result.task} {name} {metric.adapted:.4f} (base {metric.base:.4f})"
        for result in record.tasks
        for name, metric in result.metrics.items()
    ]
    return "; ".join(figures) or None


def _answer_figures(record: RunRecord) -> Value:
    """`validation rouge_l 0.3123 (base 0.2871)`, one after the other."""
    figures = [
        f"{answers.split} {name} {figure.adapted:.4f} (base {figure.base:.4f})"
        for answers in record.answers
        for name, figure in answers.metrics.items()
    ]
    return "; ".join(figures) or None


def _answered(split: str, whose: str) -> Callable[[RunRecord], Value]:
    """Reads the first metric of a split's answers, of `base` or `adapted`."""

    def read(record: RunRecord) -> Value:
        answers = record.answers_of(split)
        value: float | None = None if answers is None else getattr(next(iter(answers.metrics.values())), whose)
        return value

    return read


def change_elsewhere(dataset: str) -> Callable[[RunRecord], Value]:
    """Reads the change of bits per byte against the base on another corpus, as a share of the base's."""
    return lambda record: _changes(record).get(dataset)


def _changes(record: RunRecord) -> dict[str, float]:
    """Corpus -> change against the base there, as a share of the base's bits per byte."""
    found = {
        drift.dataset: drift.adapted.bits_per_byte / drift.base.bits_per_byte - 1.0
        for drift in record.drift
        if drift.base.bits_per_byte
    }
    return {name: change for name, change in found.items() if math.isfinite(change)}


ANSWERED = tuple(
    Column(
        f"{key}_answers",
        f"{title} answers",
        _answered(split, whose),
        Form.BITS,
        unit="mean of the first metric",
        is_better="higher",
    )
    for key, title, split, whose in (
        ("base_val", "base validation", "validation", "base"),
        ("val", "validation", "validation", "adapted"),
        ("base_test", "base test", "test", "base"),
        ("test", "test", "test", "adapted"),
    )
)
"""What answers are worth, by the first metric asked for."""
MEASURED_BESIDE = (
    Column(
        "also_on",
        "also scored on",
        lambda record: "; ".join(drift.dataset for drift in record.drift) or None,
        short="also on",
    ),
    Column(
        "changes_elsewhere",
        "changes elsewhere",
        lambda record: "; ".join(f"{name} {change:+.4f}" for name, change in _changes(record).items()) or None,
        unit="share of the base's bits per byte there; above zero is worse",
    ),
    Column(
        "worst_change_elsewhere",
        "worst elsewhere",
        lambda record: max(_changes(record).values(), default=None),
        Form.PERCENT,
        "elsewhere",
        "largest change of bits per byte against the base on a corpus it was also scored on",
        "lower",
    ),
    Column("samples", "samples", lambda record: len(record.samples), Form.COUNT, unit="continuations written"),
    Column("tasks", "tasks", _task_figures),
    Column(
        "task_examples",
        "examples of tasks",
        lambda record: max((result.num_examples for result in record.tasks), default=None),
        Form.COUNT,
        unit="documents of the largest task",
    ),
    Column("generate", "answers by metric", _answer_figures),
    *ANSWERED,
)
"""What was measured of the finished adapter besides, which makes no figure of the run itself."""
