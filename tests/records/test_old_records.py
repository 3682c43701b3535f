"""Records that an earlier lorabench wrote stay readable, and say what they always said."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from lorabench.experiment.identity import run_id
from lorabench.experiment.measurements import MeasurementRequest
from lorabench.records.measurements import missing_in
from lorabench.records.schema import SCHEMA_VERSION, Status
from lorabench.records.store import RECORD_NAME, RecordStore
from lorabench.report.build import build_report

VERSION_1 = Path(__file__).parent / "data" / "version_1.json"
"""Written by the last lorabench of schema 1: what only measures was part of the specification, and of the id."""


def stored(folder: Path) -> RecordStore:
    identity = json.loads(VERSION_1.read_bytes())["run_id"]
    (folder / "runs" / identity).mkdir(parents=True)
    (folder / "runs" / identity / RECORD_NAME).write_bytes(VERSION_1.read_bytes())
    return RecordStore(folder)


def test_a_record_of_version_1_is_read_whole(tmp_path: Path) -> None:
    store, written = stored(tmp_path), json.loads(VERSION_1.read_bytes())
    (record,), damaged = store.read_all()
    assert damaged == []
    assert (record.schema_version, record.status) == (SCHEMA_VERSION, Status.COMPLETED)
    assert record.run_id == written["run_id"] == "tiny-smollm2_words_lora-r2-lr0.02-s0_c098820006"
    assert run_id(record.spec) != record.run_id
    (drift,), (old,) = record.drift, written["drift"]
    assert (drift.dataset, drift.revision) == ("far-23b3af12", written["spec"]["also_on_revisions"][0])
    assert record.references["also_on:far-23b3af12"] == "/data/far.jsonl"
    assert (record.spec.model, record.spec.dataset) == ("tiny-smollm2-6e529610", "words-21f86640")
    later = {"effective_documents", "end_of_turn_nll", "num_end_of_turn_tokens"}
    assert drift.base.model_dump(exclude=later) == old["base"]
    assert drift.adapted.model_dump(exclude=later) == old["adapted"]
    assert drift.documents == "documents/also_on-far.parquet"
    assert drift.documents in record.files
    assert drift.measurement is not None
    assert drift.measurement.validation_bytes == written["spec"]["evaluation"]["validation_bytes"]
    assert drift.measurement.code_sha256 == written["environment"]["code_sha256"]
    assert drift.measurement.measured_at == written["finished_at"]
    assert record.sampling is not None
    assert record.sampling.num_asked == len(record.samples) == 1
    values = record.model_dump(mode="json")
    for evaluation in values["evaluations"]:
        assert [evaluation["validation"].pop(key) for key in later] == [None, None, None]
    assert values["budget"].pop("validation_seen") is None
    assert values["budget"].pop("gradient_checkpointing") is False
    assert values["speed"].pop("peak_reserved_bytes") is None
    assert values["speed"].pop("base_bytes") is None
    assert values["environment"].pop("gpu") is None
    assert values["environment"].pop("worker") == ""
    for part in ("budget", "speed", "environment", "evaluations", "files", "notes"):
        assert values[part] == written[part]


def test_it_is_reported_and_written_as_today(tmp_path: Path) -> None:
    store = stored(tmp_path)
    paths = build_report(store, figures=False)
    (table,) = [path for path in paths.written if path.name == "benchmark_results.csv"]
    with table.open(encoding="utf-8", newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert row["run_id"].endswith("_c098820006")
    assert (row["also_on"], row["samples"]) == ("far-23b3af12", "1")
    (record,), _ = store.read_all()
    store.write(record)
    assert RecordStore(tmp_path).get(record.run_id) == record


def test_nothing_that_it_holds_is_measured_again(tmp_path: Path) -> None:
    (record,), _ = stored(tmp_path).read_all()
    revision = record.drift[0].revision
    assert not missing_in(record, MeasurementRequest({"far-23b3af12": revision}, samples=1))
    assert not missing_in(record, MeasurementRequest({"far-23b3af12": None}))
    assert not missing_in(record, MeasurementRequest())
    missing = missing_in(record, MeasurementRequest({"far-23b3af12": "another", "near": "1"}, samples=2))
    assert missing == MeasurementRequest({"far-23b3af12": "another", "near": "1"}, samples=2)
