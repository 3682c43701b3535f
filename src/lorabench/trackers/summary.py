"""The figures that sum a finished run up, under the column names of the results table."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.records.column import Column, Value
from lorabench.records.columns import CHANGE, COLUMNS, METRICS
from lorabench.records.measured_columns import ANSWERED
from lorabench.records.schema import RunRecord

_SIZES = ("trainable_parameters", "train_tokens", "steps")
_NUMBERS_BESIDE = (CHANGE, COLUMNS["worst_change_elsewhere"], *ANSWERED)
_FACTS = (
    *("num_resumed", "device", "device_name", "num_devices", "lorabench_version", "git_commit"),
    *("started_at", "finished_at"),
)
_SIZES_OF_MODEL = ("model_parameters", "trainable_parameters")


def final_values(record: RunRecord) -> dict[str, Value]:
    """What a tracker shows of a run at a glance: the status, and numbers to sort by. Missing figures are left out."""
    state = {"status": record.status.value, "status_reason": record.status_reason}
    return state | _known(record, [*METRICS, *_NUMBERS_BESIDE, *(COLUMNS[key] for key in _SIZES)])


def final_facts(record: RunRecord) -> dict[str, Value]:
    """What is known only once a run has begun: sizes and versions, for a tracker's configuration."""
    facts = {key: COLUMNS[key].read(record) for key in _FACTS}
    return facts | _known(record, [COLUMNS[key] for key in _SIZES_OF_MODEL])


def _known(record: RunRecord, columns: Sequence[Column]) -> dict[str, Value]:
    return {column.key: value for column in columns if (value := column.read(record)) is not None}
