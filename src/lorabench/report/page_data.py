"""What the page's own script works on: every run with all its figures, small enough for 2,000 of them.

Everything is plain JSON. Text that comes up again and again (names, prompts, the base model's continuations) is written
once and referred to by its number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lorabench.record.columns import CHANGE, COLUMNS, SETTINGS, Form
from lorabench.record.schema import RunRecord
from lorabench.report.curves import short

MAX_SAMPLES_PER_RUN = 3
MAX_SAMPLE_CHARACTERS = 600


_FIRST = (
    *("run_id", "status", "model", "dataset", "method", "rank", "learning_rate", "seed", "val_bits_per_byte", "gain"),
    *("test_bits_per_byte", "tokens_per_second", "peak_memory_mb", "adapter_mb", "train_seconds", "alpha", "dropout"),
    *("target_modules", "precision", "quantization", "batch_size", "context_length", "epochs", "train_bytes"),
    *("train_tokens", "steps", "model_parameters", "trainable_parameters", "base_val_bits_per_byte"),
    *("base_test_bits_per_byte", "val_loss", "val_perplexity", "val_word_perplexity", "test_perplexity"),
    *("num_test_scorings", "device_name", "execution_path", "attempt", "experiment", "started_at", "finished_at"),
)
"""In this order; then every setting that is not among them."""
_ALWAYS_SHOWN = {
    *("run_id", "model", "dataset", "rank", "learning_rate", "val_bits_per_byte", "gain", "test_bits_per_byte"),
    *("tokens_per_second", "peak_memory_mb"),
}
_SHOWN_WHERE_THEY_DIFFER = {"status", "device_name", "experiment", *(setting.key for setting in SETTINGS)}


class _Texts:
    """Every text once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, text: str | None) -> int | None:
        return None if text is None else self.numbers.setdefault(text, len(self.numbers))


def runs_payload(records: Sequence[RunRecord]) -> dict[str, Any]:
    """All runs by column, with what a run's own view shows: reason, notes, samples."""
    texts = _Texts()
    columns = []
    known = COLUMNS | {CHANGE.key: CHANGE}
    for key in dict.fromkeys((*_FIRST, *(setting.key for setting in SETTINGS))):
        column = known[key]
        values: list[Any] = [column.read(record) for record in records]
        varies = key in _SHOWN_WHERE_THEY_DIFFER and len(set(values)) > 1
        if key == "alpha":
            varies = len({record.spec.adapter.alpha for record in records}) > 1
        is_text = column.form is Form.TEXT
        columns.append(
            {
                "key": key,
                "title": column.title,
                "form": column.form,
                "about": "; ".join(
                    part for part in (column.unit, column.is_better and f"{column.is_better} is better") if part
                ),
                "shown": key in _ALWAYS_SHOWN or varies,
                "values": [texts.number(value) if is_text else short(value) for value in values],
            }
        )
    return {
        "columns": columns,
        "reasons": [texts.number(record.status_reason) for record in records],
        "notes": [[texts.number(note) for note in record.notes] for record in records],
        "samples": [_samples(record, texts) for record in records],
        "texts": list(texts.numbers),
    }


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
