"""A run in float16, from the experiment to its record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import lorabench
from lorabench.records.schema import Status


def test_skipped_steps_are_recorded(
    experiment: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorabench.training.optimization.INITIAL_SCALE", 2.0**30)
    training = {"learning_rate": 0.02, "batch_size": 4, "context_length": 32, "train_bytes": 6000, "precision": "fp16"}
    outcome = lorabench.run(experiment(adapter={"rank": 2}, training=training), tmp_path / "out", trackers=["none"])
    (record,) = outcome.records
    assert record.status is Status.COMPLETED, record.status_reason
    metrics = tmp_path / "out" / "runs" / record.run_id / "metrics.jsonl"
    steps = [line for line in map(json.loads, metrics.read_text().splitlines()) if line["kind"] == "step"]
    skipped = [step["loss_scale"] for step in steps if step["gradient_norm"] is None]
    assert len(skipped) == record.num_skipped_steps > 0
    assert skipped == [2.0**30 / 2**index for index in range(len(skipped))]
    assert record.validation is not None
    assert record.base_validation is not None
    assert record.validation.bits_per_byte < record.base_validation.bits_per_byte
    assert record.spec.training.precision == "fp16"
