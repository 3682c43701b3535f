"""The results table: one row per record, in the columns that users' spreadsheets and scripts rely on."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorabench.cache import write_atomically
from lorabench.record.schema import RunRecord, Scores

CSV_NAME = "benchmark_results.csv"


def csv_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Rows in the order of the columns; what is missing is None."""
    return [_row(record) for record in records]


def write_csv(records: Sequence[RunRecord], path: Path) -> None:
    """Write the table whole or not at all."""
    rows = csv_rows(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    write_atomically(path, text.getvalue().encode("utf-8", errors="backslashreplace"))


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is written as text."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value


def _row(record: RunRecord) -> dict[str, Any]:
    spec, adapter, budget, speed = record.spec, record.adapter, record.budget, record.speed
    environment = record.environment
    return {
        "run_id": record.run_id,
        "status": record.status.value,
        "status_reason": record.status_reason,
        "experiment": record.experiment,
        "model": spec.model,
        "model_revision": record.model.revision if record.model else spec.model_revision,
        "model_parameters": record.model.num_parameters if record.model else None,
        "dataset": spec.dataset,
        "dataset_revision": record.dataset.revision if record.dataset else spec.dataset_revision,
        "method": spec.adapter.method,
        "rank": spec.adapter.rank if spec.adapter.method != "full" else None,
        "alpha": spec.adapter.alpha_value if spec.adapter.method != "full" else None,
        "dropout": spec.adapter.dropout,
        "target_modules": spec.adapter.target_modules,
        "trainable_parameters": adapter.trainable_parameters if adapter else None,
        "quantization": spec.quantization,
        "precision": spec.training.precision,
        "learning_rate": spec.training.learning_rate,
        "batch_size": spec.training.batch_size,
        "context_length": spec.training.context_length,
        "epochs": spec.training.epochs,
        "seed": spec.seed,
        "train_bytes": budget.train_bytes if budget else None,
        "train_tokens": budget.train_tokens if budget else None,
        "steps": budget.steps if budget else None,
        "base_val_bits_per_byte": _figure(record.base_validation, "bits_per_byte"),
        "base_val_perplexity": _figure(record.base_validation, "perplexity"),
        "val_loss": _figure(record.validation, "loss"),
        "val_perplexity": _figure(record.validation, "perplexity"),
        "val_bits_per_byte": _figure(record.validation, "bits_per_byte"),
        "val_bits_per_token": _figure(record.validation, "bits_per_token"),
        "val_word_perplexity": _figure(record.validation, "word_perplexity"),
        "test_loss": _figure(record.test, "loss"),
        "test_perplexity": _figure(record.test, "perplexity"),
        "test_bits_per_byte": _figure(record.test, "bits_per_byte"),
        "tokens_per_second": speed.tokens_per_second if speed else None,
        "train_seconds": speed.train_seconds if speed else None,
        "peak_memory_mb": speed.peak_memory_bytes / 1e6 if speed else None,
        "adapter_mb": adapter.adapter_bytes / 1e6 if adapter and adapter.adapter_bytes else None,
        "device": environment.device,
        "num_devices": environment.num_devices,
        "lorabench_version": environment.lorabench_version,
        "git_commit": environment.git_commit,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "device_name": environment.device_name,
        "execution_path": adapter.execution_path if adapter else None,
        "base_test_bits_per_byte": _figure(record.base_test, "bits_per_byte"),
        "num_test_scorings": record.num_test_scorings,
        "attempt": record.attempt,
        "notes": "; ".join(record.notes) or None,
    }


def _figure(scores: Scores | None, name: str) -> float | None:
    if scores is None:
        return None
    value: float = getattr(scores, name)
    return value if math.isfinite(value) else None
