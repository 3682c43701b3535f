from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from lorabench.cli.views.outcome import print_outcome
from lorabench.cli.views.run_page import show_run
from lorabench.cli.views.table import results_table
from lorabench.cli.views.text import clean, percent, sparkline
from lorabench.core.formatting import duration, number
from lorabench.core.storage import sha256_file
from lorabench.records.schema import Measurement, RunRecord, Scores, Status, TaskMetric, TaskResult
from lorabench.records.store import RecordStore
from lorabench.runs.outcome import Counts

from .conftest import MakeRecord


def _console(width: int = 120) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=width, markup=False, highlight=False), stream


def _rows(records: list[RunRecord], ties: dict[str, set[str]] | None, width: int = 120) -> list[list[str]]:
    console, stream = _console(width)
    console.print(results_table(records, ties, width=width))
    return [line.split() for line in stream.getvalue().splitlines()]


def test_the_best_of_each_corpus_is_marked_and_ties_are_ties(make_record: MakeRecord) -> None:
    records = [
        make_record("a", 0.92, rank=8),
        make_record("b", 0.90, rank=16),
        make_record("c", 0.91, rank=32),
        make_record("d", 0.80, dataset="code", rank=8),
        make_record("e", 0.70, dataset="code", rank=16),
    ]
    rows = _rows(records, {"news": {"b", "c"}, "code": {"e"}})
    assert rows[0] == ["corpus", "rank", "bits/byte", "vs", "base", "test", "tokens/s"]
    assert [(row[0], row[1], row[2], row[-1]) for row in rows[1:]] == [
        ("news", "16", "0.9000", "tie"),
        ("news", "32", "0.9100", "tie"),
        ("news", "8", "0.9200", "812"),
        ("code", "16", "0.7000", "lowest"),
        ("code", "8", "0.8000", "812"),
    ]


def test_without_verdicts_nothing_is_called_best(make_record: MakeRecord) -> None:
    rows = _rows([make_record("a", 0.9, rank=8), make_record("b", 0.9, rank=16), make_record("c", 0.95, rank=32)], None)
    assert [row[-1] for row in rows[1:]] == ["lowest", "lowest", "812"]


def test_one_run_is_the_best_of_nothing(make_record: MakeRecord) -> None:
    rows = _rows([make_record("a", 0.9)], {"news": {"a"}})
    assert rows[1][-1] == "812"


def test_the_seeds_of_one_configuration_are_no_tie(make_record: MakeRecord) -> None:
    def seeded(run_id: str, figure: float, seed: int, rank: int) -> RunRecord:
        record = make_record(run_id, figure, rank=rank)
        return record.model_copy(update={"spec": record.spec.model_copy(update={"seed": seed})})

    winner = [seeded("a", 0.90, 0, 8), seeded("b", 0.91, 1, 8)]
    assert [row[-1] for row in _rows(winner, {"news": {"a", "b"}})[1:]] == ["812", "812"]
    rows = _rows([*winner, seeded("c", 0.95, 0, 16)], {"news": {"a", "b"}})
    assert [row[-1] for row in rows[1:]] == ["best", "best", "812"]


def test_a_diverged_run_is_never_best(make_record: MakeRecord) -> None:
    records = [
        make_record("a", 0.1, rank=8, status=Status.DIVERGED),
        make_record("b", 0.9, rank=16),
        make_record("c", None, rank=32, status=Status.OUT_OF_MEMORY, speed=None),
        make_record("d", 0.95, rank=64),
    ]
    rows = _rows(records, None)
    assert [(row[1], row[-1]) for row in rows[1:]] == [
        ("16", "lowest"),
        ("64", "812"),
        ("32", "memory"),
        ("8", "diverged"),
    ]


def test_a_narrow_terminal_gets_fewer_columns(make_record: MakeRecord) -> None:
    console, stream = _console(50)
    console.print(results_table([make_record("a", 0.9, rank=8), make_record("b", 0.8, rank=16)], None, width=50))
    lines = stream.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 50
    assert lines[0].split() == ["corpus", "rank", "bits/byte", "vs", "base"]


def test_many_runs_are_cut_short(make_record: MakeRecord) -> None:
    rows = _rows([make_record(f"run-{i:03}", 0.9 + i / 1000, rank=i + 1) for i in range(200)], None)
    assert len(rows) == 1 + 12 + 1
    assert rows[-1] == ["…", "188", "more"]


@dataclass
class _Outcome:
    records: list[RunRecord]
    counts: Counts = field(default_factory=Counts)
    num_unmeasured: int = 0
    cancelled: bool = False
    results_dir: Path = field(default_factory=Path)
    problems: tuple[str, ...] = ()


def test_the_outcome_names_failures_and_files(make_record: MakeRecord, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("")
    records = [
        make_record("good", 0.9),
        make_record("[bold]bad", None, status=Status.FAILED, status_reason="the \x1b[31mdisk\nis full", speed=None),
    ]
    console, stream = _console()
    print_outcome(
        _Outcome(
            records,
            Counts(completed_before=1, failed_now=1),
            cancelled=True,
            results_dir=tmp_path,
            problems=tuple(f"file {i} is damaged" for i in range(300)),
        ),
        console=console,
    )
    text = stream.getvalue()
    assert "1 of 2 runs completed, 1 of them before; 1 failed" in text
    assert "[bold]bad  failed: the \\x1b[31mdisk is full" in text
    assert "goes on where it stopped" in text
    assert text.count("is damaged") == 8
    assert "note: … and 292 more; lorabench report prints them all" in text
    assert text.rstrip().endswith("report.html")
    assert "benchmark_results.csv" not in text


def test_one_run_on_one_screen(make_record: MakeRecord, tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    path = store.run_dir("run-a") / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    lines = [{"kind": "step", "step": step, "loss": 4.0 / step} for step in range(1, 9)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = make_record("run-a", 0.9, notes=("[blink]a note",), files={"metrics.jsonl": sha256_file(path)})
    console, stream = _console(100)
    show_run(record, store, console)
    text = stream.getvalue()
    for expected in (
        "run-a completed",
        "lora: rank 8, alpha 16.0, dropout 0.0, on all-linear",
        "gradient clipping 1.0, precision fp32",
        "evaluation validation text in bytes 200000, test text in bytes 200000, validation scorings 4",
        "validation 1.0000 0.9000 −10.0 %",
        "also on stories 1.0000 1.2500 +25.0 %",
        "4.000 █",
        "▁ 0.5000",
        "best step 5: 0.9000 kept the last: 0.9000",
        "30 s, 812 tokens/s",
        "1,500 MB",
        "[bold]Once",
        "upon\\x1b[2J a",
        "dddddddddddd (changed)",
        "note: [blink]a note",
    ):
        assert expected in " ".join(text.split()), expected
    assert "\x1b" not in text


def test_the_page_of_a_run_has_perplexity_by_length(make_record: MakeRecord, tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    path = store.run_dir("run-a") / "documents" / "validation.parquet"
    path.parent.mkdir(parents=True)
    pd.DataFrame(
        {
            "document_hash": ["a", "b", "c"],
            "num_bytes": [255, 256, 70_000],
            "num_tokens": [60, 64, 20_000],
            "num_words": [40, 50, 9_000],
            "nll": [60.0, 128.0, 30_000.0],
            "base_nll": [120.0, 128.0, 40_000.0],
        }
    ).to_parquet(path)
    scores = Scores(
        negative_log_likelihood=30_188.0, num_tokens=20_124, num_bytes=70_511, num_words=9_090, num_documents=3
    )
    hashes = {"documents/validation.parquet": sha256_file(path)}
    record = make_record("run-a", validation=scores, files=hashes)
    console, stream = _console(100)
    show_run(record, store, console)
    text = " ".join(stream.getvalue().split())
    assert "0 to 255 bytes 1 7.389 2.718 0.3395 −50.0 %" in text
    assert "256 to 1,023 bytes 1 7.389 7.389 0.7213 +0.0 %" in text
    assert "65,536 bytes and more 1 7.389 4.482 0.6183 −25.0 %" in text
    assert "1,024 to" not in text
    path.write_bytes(b"not Parquet")
    console, stream = _console(100)
    show_run(record, store, console)
    assert "note: " in stream.getvalue()
    assert "validation.parquet: it is not as it was written" in " ".join(stream.getvalue().split())
    assert "What it took" in stream.getvalue()


def test_the_page_of_a_run_has_its_tasks(make_record: MakeRecord, tmp_path: Path) -> None:
    how = {"validation_bytes": 1, "context_length": 1, "stride": None, "precision": "fp32", "device": "cpu"}
    how |= {"device_name": "x", "lorabench_version": "0", "code_sha256": "0", "measured_at": "2026-01-01T00:00:00Z"}
    result = TaskResult(
        reference="tasks/colours.yaml",
        revision="1",
        task="colours",
        num_examples=1200,
        metrics={
            "acc": TaskMetric(base=0.25, base_error=0.0125, adapted=0.5, adapted_error=0.0144, difference_error=0.01),
            "own": TaskMetric(base=0.75, adapted=0.5),
        },
        measurement=Measurement.model_validate(how),
    )
    console, stream = _console(100)
    show_run(make_record("run-a", 0.9, tasks=(result,)), RecordStore(tmp_path), console)
    text = " ".join(stream.getvalue().split())
    assert "colours acc 1,200 0.2500 ± 0.0125 0.5000 ± 0.0144 +0.2500 ± 0.0100" in text
    assert "colours own 1,200 0.7500 0.5000 -0.2500" in text


def test_a_run_that_measured_nothing_can_be_shown(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record(
        "run-a",
        None,
        status=Status.FAILED,
        status_reason="no such corpus",
        base_validation=None,
        base_test=None,
        drift=(),
        samples=(),
        speed=None,
    )
    console, stream = _console(60)
    show_run(record, RecordStore(tmp_path), console)
    assert "failed: no such corpus" in stream.getvalue()
    assert "Bits per byte" not in stream.getvalue()
    assert "What it took" not in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (41, "41 s"), (120, "2 min"), (3900, "65 min"), (7500, "2 h 05 min"), (2e5, "2 d 7 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_figures() -> None:
    assert [number(value) for value in (None, 0.0, 0.91234, 12.3456, 12345.678, 1e-5, float("inf"))] == [
        "–",
        "0",
        "0.9123",
        "12.35",
        "12,346",
        "0.00001000",
        "∞",
    ]
    assert (percent(-0.1), percent(0.032)) == ("−10.0 %", "+3.2 %")
    assert sparkline([3.0, 2.0, 1.0, float("nan")], 3) == "█▅▁"
    assert sparkline(list(range(100)), 10) == "▁▁▂▃▄▅▆▇██"
    assert sparkline([], 5) == ""
    assert clean("a\x00b\u2066c", 40) == "a\\x00b\\u2066c"
    assert clean("x" * 50 + "end", 12) == "xxxxxxx…xend"
