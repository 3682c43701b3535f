"""The results table: one row per record, in the columns that users' spreadsheets and scripts rely on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorabench.core.storage import write_atomically
from lorabench.records.columns import COLUMNS
from lorabench.records.schema import RunRecord

CSV_NAME = "benchmark_results.csv"
_PUBLISHED = (
    *("run_id", "status", "status_reason", "experiment", "model", "model_revision", "model_parameters"),
    *("dataset", "dataset_revision", "method", "rank", "alpha", "dropout", "target_modules", "trainable_parameters"),
    *("quantization", "precision", "learning_rate", "batch_size", "context_length", "epochs", "seed", "train_bytes"),
    *("train_tokens", "steps", "base_val_bits_per_byte", "base_val_perplexity", "val_loss", "val_perplexity"),
    *("val_bits_per_byte", "val_bits_per_token", "val_word_perplexity", "test_loss", "test_perplexity"),
    *("test_bits_per_byte", "tokens_per_second", "train_seconds", "peak_memory_mb", "adapter_mb", "device"),
    *("num_devices", "lorabench_version", "git_commit", "started_at", "finished_at", "device_name", "execution_path"),
    *("base_test_bits_per_byte", "num_test_scorings", "attempt", "notes"),
    *("micro_batch_size", "schedule", "warmup_ratio", "weight_decay", "max_grad_norm"),
    *("validation_bytes", "test_bytes", "times", "stride", "also_on", "samples", "num_resumed"),
)
"""The order never changes: what is described beyond these comes after them."""


def csv_columns() -> list[str]:
    """Names of the columns in their order."""
    return list(dict.fromkeys((*_PUBLISHED, *COLUMNS)))


def csv_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Rows in the order of the columns; what is missing is None."""
    columns = [COLUMNS[key] for key in csv_columns()]
    return [{column.key: column.read(record) for column in columns} for record in records]


def write_csv(records: Sequence[RunRecord], path: Path) -> None:
    """Write the table whole or not at all."""
    rows = csv_rows(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in rows)
    write_atomically(path, text.getvalue().encode("utf-8", errors="backslashreplace"))


def csv_cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is written as text."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value
