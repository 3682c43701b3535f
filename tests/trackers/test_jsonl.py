from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lorabench.core.errors import DiskError
from lorabench.records.schema import RunRecord
from lorabench.trackers.base import STEP_FIELDS, TrackedRun, evaluation_values
from lorabench.trackers.jsonl import MetricsFile

from .conftest import step_values


def _read(run: TrackedRun) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_every_line_is_on_disk_as_soon_as_it_is_logged(tracked_run: TrackedRun, record: RunRecord) -> None:
    file = MetricsFile()
    file.start(tracked_run)
    file.log_step(step_values(1))
    assert _read(tracked_run) == [{"kind": "step"} | step_values(1)]
    assert tuple(_read(tracked_run)[0])[1:] == STEP_FIELDS
    assert record.validation is not None
    file.log_evaluation(evaluation_values(1, 512, record.validation))
    line = _read(tracked_run)[1]
    assert line["kind"] == "evaluation"
    assert line["validation_loss"] == 2.5
    assert line["validation_perplexity"] == pytest.approx(math.exp(2.5))
    assert line["validation_bits_per_byte"] == pytest.approx(250 / math.log(2) / 400)
    file.finish(record, "completed")


def test_a_resumed_run_repeats_no_step(tracked_run: TrackedRun) -> None:
    first = MetricsFile()
    first.start(tracked_run)
    for step in range(1, 8):
        first.log_step(step_values(step))
        if step in {3, 6}:
            first.log_evaluation({"step": step, "validation_loss": 1.0})
    first.finish(None, "cancelled")
    with (tracked_run.folder / "metrics.jsonl").open("ab") as killed:
        killed.write(b'{"kind": "step", "st')

    again = MetricsFile()
    again.start(replace(tracked_run, attempt=2))
    assert [line["step"] for line in _read(tracked_run)] == [1, 2, 3, 3, 4, 5, 6, 6, 7]
    again.truncate_after(4)
    for step in (5, 6):
        again.log_step(step_values(step) | {"loss": 9.0})
    again.log_evaluation({"step": 6, "validation_loss": 2.0})
    again.log_evaluation({"step": 6, "validation_loss": 3.0})
    again.finish(None, "completed")
    lines = _read(tracked_run)
    assert [(line["kind"], line["step"]) for line in lines if line["kind"] == "step"] == [
        ("step", step) for step in range(1, 7)
    ]
    assert [line["validation_loss"] for line in lines if line["kind"] == "evaluation"] == [1.0, 2.0]
    assert [line["loss"] for line in lines if line["step"] in {5, 6} and line["kind"] == "step"] == [9.0, 9.0]


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "a cut last line"])
def test_a_file_damaged_while_its_run_is_unfinished_is_set_aside(
    tracked_run: TrackedRun, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    file, path = MetricsFile(), tracked_run.folder / "metrics.jsonl"
    file.start(tracked_run)
    for step in range(1, 9):
        file.log_step(step_values(step))
        if step == 5:
            file.sync()
    file.truncate_after(4)  # behind the mark, as after a checkpoint that could not be taken up
    for step in range(5, 8):
        file.log_step(step_values(step))
    file.finish(None, "cancelled")
    again = MetricsFile()
    again.start(tracked_run)
    assert again.last_step == 7
    again.sync()
    again.finish(None, "cancelled")
    content = path.read_bytes()
    place = content.index(b'"loss": ') + 8
    changed = {
        "flipped": content[:place] + b"9" + content[place + 1 :],
        "cut": content[:-40],
        "a cut last line": content + b'{"kind": "st',
    }
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(changed[damage])
    last = MetricsFile()
    last.start(tracked_run)
    assert last.last_step == (7 if damage == "a cut last line" else 0)
    set_aside = list(path.parent.glob("metrics.jsonl.damaged-*"))
    assert len(set_aside) == (damage in {"flipped", "cut"})
    assert ("metrics.jsonl is damaged: set aside as" in caplog.text) == bool(set_aside)
    last.log_step(step_values(last.last_step + 1))
    last.finish(None, "cancelled")
    once_more = MetricsFile()
    once_more.start(tracked_run)
    once_more.finish(None, "cancelled")
    assert once_more.last_step == last.last_step


def test_a_run_begun_anew_forgets_the_failed_attempt(tracked_run: TrackedRun) -> None:
    for attempt in (1, 2):
        file = MetricsFile()
        file.start(replace(tracked_run, attempt=attempt))
        for step in range(1, 4 - attempt):
            file.log_step(step_values(step) | {"loss": float(attempt)})
        file.finish(None, "diverged")
    assert [(line["step"], line["loss"]) for line in _read(tracked_run)] == [(1, 2.0)]


def test_numbers_that_json_does_not_have(tracked_run: TrackedRun) -> None:
    file = MetricsFile()
    file.start(tracked_run)
    file.log_step({"step": np.int64(1), "loss": math.nan, "gradient_norm": math.inf, "seconds": np.float32(0.5)})
    file.finish(None, "diverged")
    assert _read(tracked_run) == [{"kind": "step", "step": 1, "loss": None, "gradient_norm": None, "seconds": 0.5}]


def test_an_unwritable_folder_is_one_sentence(tracked_run: TrackedRun, tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    with pytest.raises(DiskError, match=r"a-file.*cannot be written"):
        MetricsFile().start(replace(tracked_run, folder=blocked / "run"))
