"""The figures that sum a finished run up, under the column names of the results table."""

from __future__ import annotations

from lorabench.record.schema import RunRecord
from lorabench.track.base import finite

_MEGABYTE = 1e6


def final_values(record: RunRecord) -> dict[str, float | int | str | None]:
    """What a tracker shows of a run at a glance. Missing figures are left out, the status never is."""
    values: dict[str, float | int | str | None] = {}
    if record.base_validation is not None:
        values["base_val_bits_per_byte"] = finite(record.base_validation.bits_per_byte)
        values["base_val_perplexity"] = finite(record.base_validation.perplexity)
    for prefix, scores in (("val", record.validation), ("test", record.test)):
        if scores is not None:
            values[f"{prefix}_loss"] = finite(scores.loss)
            values[f"{prefix}_perplexity"] = finite(scores.perplexity)
            values[f"{prefix}_bits_per_byte"] = finite(scores.bits_per_byte)
    if record.validation is not None:
        values["val_bits_per_token"] = finite(record.validation.bits_per_token)
        values["val_word_perplexity"] = finite(record.validation.word_perplexity)
    if record.adapter is not None:
        values["trainable_parameters"] = record.adapter.trainable_parameters
        if record.adapter.adapter_bytes is not None:
            values["adapter_mb"] = record.adapter.adapter_bytes / _MEGABYTE
    if record.budget is not None:
        values["train_tokens"] = record.budget.train_tokens
        values["steps"] = record.budget.steps
    if record.speed is not None:
        values["tokens_per_second"] = record.speed.tokens_per_second
        values["train_seconds"] = record.speed.train_seconds
        values["peak_memory_mb"] = record.speed.peak_memory_bytes / _MEGABYTE
    present: dict[str, float | int | str | None] = {k: v for k, v in values.items() if v is not None}
    return {"status": record.status.value, "status_reason": record.status_reason} | present


def final_facts(record: RunRecord) -> dict[str, float | int | str | None]:
    """What is known only once a run has begun: sizes and versions, for a tracker's configuration."""
    environment = record.environment
    facts: dict[str, float | int | str | None] = {
        "num_resumed": record.num_resumed,
        "device": environment.device,
        "device_name": environment.device_name,
        "num_devices": environment.num_devices,
        "lorabench_version": environment.lorabench_version,
        "git_commit": environment.git_commit,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
    }
    if record.model is not None:
        facts["model_parameters"] = record.model.num_parameters
    if record.adapter is not None:
        facts["trainable_parameters"] = record.adapter.trainable_parameters
    return facts
