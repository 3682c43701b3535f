"""Tasks that the base and the adapter did, as the record keeps them, and the file of their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorabench.core.canonical import fingerprint
from lorabench.core.revisions import safe_name
from lorabench.core.storage import sha256_file, write_atomically
from lorabench.records.measured import Measurement
from lorabench.records.schema import RunRecord, TaskMetric, TaskResult
from lorabench.scoring.tasks import TaskFigures, paired_error


@dataclass(frozen=True)
class TasksDone:
    """What `reference` means, done by both."""

    reference: str
    revision: str
    base: Mapping[str, TaskFigures]
    adapted: Mapping[str, TaskFigures]
    measurement: Measurement


def with_tasks(record: RunRecord, done: TasksDone, folder: Path) -> RunRecord:
    """The record with these results in place of earlier ones of the same tasks; answers go to files in `folder`.

    Their names change with the revision, so that an earlier record stays whole until there is a new one.
    """
    results, files = [], {}
    for task, adapted in done.adapted.items():
        base = done.base[task]
        file = None
        if adapted.samples:
            file = f"documents/task-{safe_name(task)}@{fingerprint([task, done.revision])[:8]}.jsonl"
            write_atomically(folder / file, _answers(base, adapted))
            files[file] = sha256_file(folder / file)
        results.append(
            TaskResult(
                reference=done.reference,
                revision=done.revision,
                task=task,
                num_examples=adapted.num_examples,
                num_fewshot=adapted.num_fewshot,
                metrics=_metrics(base, adapted),
                samples=file,
                measurement=done.measurement,
            )
        )
    kept = tuple(result for result in record.tasks if result.reference != done.reference)
    replaced = {result.samples for result in record.tasks if result.reference == done.reference}
    whole = {name: digest for name, digest in record.files.items() if name not in replaced}
    return record.model_copy(update={"tasks": (*kept, *results), "files": {**whole, **files}})


def _metrics(base: TaskFigures, adapted: TaskFigures) -> dict[str, TaskMetric]:
    return {
        name: TaskMetric(
            base=base.metrics[name],
            base_error=base.errors.get(name),
            adapted=value,
            adapted_error=adapted.errors.get(name),
            difference_error=paired_error(name, base.samples, adapted.samples),
            higher_is_better=adapted.higher_is_better.get(name),
        )
        for name, value in adapted.metrics.items()
        if name in base.metrics
    }


def _answers(base: TaskFigures, adapted: TaskFigures) -> bytes:
    """A JSON object a line: the document, and what each model made of it."""
    lines = []
    for theirs, ours in zip(base.samples, adapted.samples, strict=True):
        row: dict[str, Any] = {"doc_id": ours["doc_id"], "doc": ours.get("doc"), "target": ours.get("target")}
        for name, sample, metrics in (("base", theirs, base.metrics), ("adapted", ours, adapted.metrics)):
            row[name] = {key: sample.get(key) for key in ("resps", "filtered_resps", *metrics) if key in sample}
        lines.append(json.dumps(row, ensure_ascii=False, default=str))
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
