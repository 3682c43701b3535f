"""What the page's own script works on: every run with all its figures, small enough for 2,000 of them.

Everything is plain JSON. Text that comes up again and again (names, prompts, the base model's continuations) is written
once and referred to by its number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorabench.record.schema import RunRecord
from lorabench.report.curves import short
from lorabench.report.table import csv_rows

MAX_SAMPLES_PER_RUN = 3
MAX_SAMPLE_CHARACTERS = 600


@dataclass(frozen=True)
class Column:
    """A column of the table of runs: its name in the CSV, what it is called here, and how its values are written."""

    key: str
    title: str
    form: str = "text"
    """`text`, `count` (1,234), `bits` (0.1234), `number` (four digits), `percent`."""
    is_shown: bool = False


COLUMNS = (
    Column("run_id", "run", is_shown=True),
    Column("status", "status"),
    Column("model", "model", is_shown=True),
    Column("dataset", "corpus", is_shown=True),
    Column("method", "method"),
    Column("rank", "rank", "count", is_shown=True),
    Column("learning_rate", "learning rate", "number", is_shown=True),
    Column("seed", "seed", "count"),
    Column("val_bits_per_byte", "validation bits/byte", "bits", is_shown=True),
    Column("gain", "against base", "percent", is_shown=True),
    Column("test_bits_per_byte", "test bits/byte", "bits", is_shown=True),
    Column("tokens_per_second", "tokens/s", "count", is_shown=True),
    Column("peak_memory_mb", "peak memory MB", "count", is_shown=True),
    Column("adapter_mb", "adapter MB", "number"),
    Column("train_seconds", "training s", "number"),
    Column("alpha", "alpha", "number"),
    Column("dropout", "dropout", "number"),
    Column("target_modules", "modules"),
    Column("precision", "precision"),
    Column("quantization", "quantization"),
    Column("batch_size", "batch", "count"),
    Column("context_length", "context", "count"),
    Column("epochs", "epochs", "count"),
    Column("train_bytes", "text bytes", "count"),
    Column("train_tokens", "text tokens", "count"),
    Column("steps", "steps", "count"),
    Column("model_parameters", "model parameters", "count"),
    Column("trainable_parameters", "trained parameters", "count"),
    Column("base_val_bits_per_byte", "base validation bits/byte", "bits"),
    Column("base_test_bits_per_byte", "base test bits/byte", "bits"),
    Column("val_loss", "validation loss", "bits"),
    Column("val_perplexity", "validation perplexity", "number"),
    Column("val_word_perplexity", "validation word perplexity", "number"),
    Column("test_perplexity", "test perplexity", "number"),
    Column("num_test_scorings", "test scorings", "count"),
    Column("device_name", "device"),
    Column("execution_path", "path"),
    Column("attempt", "attempt", "count"),
    Column("experiment", "experiment"),
    Column("started_at", "started"),
    Column("finished_at", "finished"),
)
"""Shown beside those marked: every further setting that differs between the runs (see `runs_payload`)."""

_SETTINGS = (
    "status",
    "method",
    "seed",
    "alpha",
    "dropout",
    "target_modules",
    "precision",
    "quantization",
    "batch_size",
    "context_length",
    "epochs",
    "train_bytes",
    "device_name",
    "experiment",
)


class _Texts:
    """Every text once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, text: str | None) -> int | None:
        return None if text is None else self.numbers.setdefault(text, len(self.numbers))


def runs_payload(records: Sequence[RunRecord]) -> dict[str, Any]:
    """All runs by column, with what a run's own view shows: reason, notes, samples."""
    rows = csv_rows(records)
    texts = _Texts()
    columns = []
    for column in COLUMNS:
        values: list[Any] = [_gain(row) if column.key == "gain" else row[column.key] for row in rows]
        varies = column.key in _SETTINGS and len(set(values)) > 1
        if column.key == "alpha":
            varies = len({record.spec.adapter.alpha for record in records}) > 1
        if column.form == "text":
            values = [texts.number(value) for value in values]
        else:
            values = [short(value) for value in values]
        columns.append(
            {
                "key": column.key,
                "title": column.title,
                "form": column.form,
                "shown": column.is_shown or varies,
                "values": values,
            }
        )
    return {
        "columns": columns,
        "reasons": [texts.number(record.status_reason) for record in records],
        "notes": [[texts.number(note) for note in record.notes] for record in records],
        "samples": [_samples(record, texts) for record in records],
        "texts": list(texts.numbers),
    }


def _gain(row: dict[str, Any]) -> float | None:
    """Relative change of validation bits per byte against the base; negative is better."""
    adapted, base = row["val_bits_per_byte"], row["base_val_bits_per_byte"]
    return None if adapted is None or not base else adapted / base - 1.0


def _samples(record: RunRecord, texts: _Texts) -> list[list[int | None]]:
    return [
        [texts.number(_cut(text)) for text in (sample.prompt, sample.base_continuation, sample.continuation)]
        for sample in record.samples[:MAX_SAMPLES_PER_RUN]
    ]


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= MAX_SAMPLE_CHARACTERS:
        return text
    return text[:MAX_SAMPLE_CHARACTERS] + "…"


def script_json(value: object) -> str:
    """JSON for the inside of a script element, whatever texts it holds: ASCII without `<`, `>` and `&`."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
