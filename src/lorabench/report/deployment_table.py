"""Deployments as a table for spreadsheets and scripts, and what each run's forms come to."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorabench.analysis.deployment import Choice, FormAnswer, FormStanding, choose_form, read_form_answers
from lorabench.core.errors import DiskError
from lorabench.core.storage import write_atomically
from lorabench.records.deployment import DeploymentRecord, DeploymentStore
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore
from lorabench.report.table import csv_cell

CSV_NAME = "deployment_results.csv"
COLUMNS = (
    *("run_id", "form", "status", "status_reason", "real_types", "disk_bytes", "val_bits_per_byte", "difference"),
    *("difference_low", "difference_high", "gain_kept", "kl_mean", "kl_p99", "top1_agreement", "load_seconds"),
    *("peak_memory_mb", "prefill_tokens_per_second", "decode_tokens_per_second", "ttft_ms_128", "ttft_ms_512"),
    *("threads", "device", "gain_kept_low", "gain_kept_high", "test_bits_per_byte", "decode_tokens_per_second_8"),
    *("resident_memory_mb", "rounds", "engine", "versions", "answers"),
    *("decode_joules_per_token", "weights_mb", "device_memory_mb", "device_peak_memory_mb"),
    *("decode_low", "decode_high", "prefill_low", "prefill_high"),
)
"""The order never changes: new columns come last."""


@dataclass(frozen=True)
class DeployedRun:
    """A run, the records of its forms, and what to ship."""

    run: RunRecord
    records: tuple[DeploymentRecord, ...]
    choice: Choice
    answers: Mapping[str, tuple[FormAnswer, ...]]
    """By form, where the run was asked to answer."""


def deployed_runs(runs: Sequence[RunRecord], store: RecordStore) -> tuple[list[DeployedRun], list[str]]:
    """Of the runs that were deployed, and a sentence on each file that could not be used."""
    deployments = DeploymentStore(store.output_dir)
    records, damaged = deployments.read_all()
    problems = [str(problem) for problem in damaged]
    found = []
    for run in runs:
        mine = [record for record in records if record.run_id == run.run_id]
        if not mine or run.validation is None:
            continue
        try:
            own = store.documents(run, "validation", run.validation)
            constraints = deployments.constraints(run.run_id)
        except DiskError as problem:
            problems.append(str(problem))
            continue
        measured = []
        for record in mine:
            try:
                results = deployments.documents(record, "validation")
            except DiskError as problem:
                problems.append(str(problem))
                continue
            if results is not None:
                measured.append((record, results))
        if own is not None:
            answers = {record.form: _answers(record, deployments, problems) for record in mine}
            found.append(DeployedRun(run, tuple(mine), choose_form(measured, own, constraints), answers))
    return found, problems


def _answers(record: DeploymentRecord, deployments: DeploymentStore, problems: list[str]) -> tuple[FormAnswer, ...]:
    """What the form answered; a damaged file becomes a problem."""
    found: list[FormAnswer] = []
    for answers in record.answers:
        try:
            found += read_form_answers(answers, deployments.answers(record, answers))
        except DiskError as problem:
            problems.append(str(problem))
    return tuple(found)


def write_deployments(deployed: Sequence[DeployedRun], path: Path) -> None:
    """Write the table whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    for run in deployed:
        standings = {standing.record.form: standing for standing in run.choice.standings}
        for record in run.records:
            writer.writerow(_row(record, standings.get(record.form)))
    write_atomically(path, text.getvalue().encode("utf-8", errors="backslashreplace"))


def _row(record: DeploymentRecord, standing: FormStanding | None) -> dict[str, Any]:
    difference = standing.difference if standing is not None else None
    kept = standing.gain_kept if standing is not None else None
    apart = record.divergence
    decode, prefill = record.spread("decode_tokens_per_second"), record.spread("prefill_tokens_per_second")
    values = {
        "run_id": record.run_id,
        "form": record.form,
        "status": record.status.value,
        "status_reason": record.status_reason,
        "real_types": " ".join(f"{kind}:{count}" for kind, count in record.real_types.items()),
        "disk_bytes": record.disk_bytes,
        "val_bits_per_byte": record.validation and record.validation.bits_per_byte,
        "difference": difference and difference.estimate,
        "difference_low": difference and difference.low,
        "difference_high": difference and difference.high,
        "gain_kept": kept and kept.estimate,
        "kl_mean": apart and apart.kl_mean,
        "kl_p99": apart and apart.kl_p99,
        "top1_agreement": apart and apart.top1_agreement,
        "load_seconds": record.median("load_seconds"),
        "peak_memory_mb": _scaled(record.median("peak_bytes"), 1e-6),
        "prefill_tokens_per_second": record.median("prefill_tokens_per_second"),
        "decode_tokens_per_second": record.median("decode_tokens_per_second"),
        "ttft_ms_128": _scaled(record.median("ttft_seconds_128"), 1e3),
        "ttft_ms_512": _scaled(record.median("ttft_seconds_512"), 1e3),
        "threads": record.threads,
        "device": record.device,
        "gain_kept_low": kept and kept.low,
        "gain_kept_high": kept and kept.high,
        "test_bits_per_byte": record.test and record.test.bits_per_byte,
        "decode_tokens_per_second_8": record.median("decode_tokens_per_second_8"),
        "resident_memory_mb": _scaled(record.median("resident_bytes"), 1e-6),
        "weights_mb": _scaled(record.median("weight_bytes"), 1e-6),
        "rounds": len(record.rounds),
        "engine": record.engine,
        "versions": " ".join(f"{name}={number}" for name, number in record.versions.items()),
        "answers": " ".join(
            f"{answers.split}:{name}={figure.adapted:.6g}"
            for answers in record.answers
            for name, figure in answers.metrics.items()
        ),
        "decode_joules_per_token": record.median("decode_joules_per_token"),
        "decode_low": decode[0],
        "decode_high": decode[1],
        "prefill_low": prefill[0],
        "prefill_high": prefill[1],
        "device_memory_mb": _scaled(record.median("device_bytes"), 1e-6),
        "device_peak_memory_mb": _scaled(record.median("device_peak_bytes"), 1e-6),
    }
    return {key: csv_cell(value) for key, value in values.items()}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
