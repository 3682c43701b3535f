"""Columns of what was measured of the finished adapter besides, which makes no figure of the run itself."""

from __future__ import annotations

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
