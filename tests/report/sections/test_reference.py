"""Results from elsewhere beside what was measured: recomputed from the documents on disk, escaped, never ranked."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from lorabench.analysis.beside_reference import beside_reference
from lorabench.experiment.reference_results import ReferenceResults, read_reference
from lorabench.records.asked import Asked, write_asked
from lorabench.records.schema import RunRecord
from lorabench.report.build import ReportPaths, build_report, findings_of
from lorabench.report.page import PAGE_NAME
from lorabench.report.sections.reference import SECTION
from lorabench.report.summary import SUMMARY_NAME
from tests.report.synthetic import SyntheticResults

HOSTILE = "<img src=x onerror=alert(1)> | [a](javascript:b)"


@pytest.fixture
def results(tmp_path: Path) -> SyntheticResults:
    made = SyntheticResults(tmp_path, num_documents=40)
    made.grid(models=["gpt2"], datasets=["news"], ranks=[8, 16], learning_rates=[1e-4, 1e-3], seeds=[0, 1])
    return made


def reference(*entries: dict[str, object], **values: object) -> ReferenceResults:
    return read_reference({"title": "Earlier", "results": list(entries), **values}, "reference")


def perplexity_on_disk(records: list[RunRecord], results: SyntheticResults) -> tuple[float, float]:
    """Mean loss over seeds, exponentiated, and bytes per token, from the documents alone."""
    tables = [
        pd.read_parquet(results.store.run_dir(record.run_id) / "documents" / "validation.parquet") for record in records
    ]
    losses = [table["nll"].sum() / table["num_tokens"].sum() for table in tables]
    return math.exp(np.mean(losses)), tables[0]["num_bytes"].sum() / tables[0]["num_tokens"].sum()


def test_the_lowest_match_stands_beside_with_its_interval(results: SyntheticResults) -> None:
    records = results.store.read_all()[0]
    findings = findings_of(records, results.store)
    given = reference({"model": "gpt2", "dataset": "news", "rank": 16, "val_perplexity": 12.4}).results[0]
    (found,) = beside_reference(given, findings, {record.run_id: record for record in records})
    by_rate = {
        rate: perplexity_on_disk(
            [one for one in records if one.spec.adapter.rank == 16 and one.spec.training.learning_rate == rate], results
        )
        for rate in (1e-4, 1e-3)
    }
    rate = min(by_rate, key=lambda rate: by_rate[rate][0])
    perplexity, bytes_per_token = by_rate[rate]
    assert found.candidate.settings["learning_rate"] == rate
    assert found.num_candidates == 2
    assert found.perplexity.estimate == pytest.approx(perplexity, rel=1e-9)
    bits = found.candidate.bits_per_byte
    assert bits.low is not None
    assert bits.high is not None
    ends = [math.exp(end * math.log(2) * bytes_per_token) for end in (bits.low, bits.high)]
    assert [found.perplexity.low, found.perplexity.high] == pytest.approx(ends, rel=1e-9)


def test_what_is_ones_own_is_found_as_the_experiment_calls_it(results: SyntheticResults) -> None:
    records = results.store.read_all()[0]
    called = {"model": "models/mine", "dataset": "mine.jsonl"}
    by_id = {record.run_id: record.model_copy(update={"references": called}) for record in records}
    given = reference({**called, "rank": 16, "val_perplexity": 12.4}).results[0]
    assert len(beside_reference(given, findings_of(records, results.store), by_id)) == 1


@pytest.mark.parametrize(
    "other", [{"model": "gpt2-medium"}, {"dataset": "code"}, {"rank": 4}, {"method": "dora"}], ids=str
)
def test_what_is_of_something_else_has_no_match(other: dict[str, object], results: SyntheticResults) -> None:
    records = results.store.read_all()[0]
    findings, by_id = findings_of(records, results.store), {record.run_id: record for record in records}
    entry = {"model": "gpt2", "dataset": "news", "rank": 8, "val_perplexity": 12.4}
    assert len(beside_reference(reference(entry).results[0], findings, by_id)) == 1
    assert beside_reference(reference(entry | other).results[0], findings, by_id) == []


def written(paths: ReportPaths) -> tuple[str, str]:
    return tuple((paths.results_dir / name).read_text(encoding="utf-8") for name in (PAGE_NAME, SUMMARY_NAME))  # type: ignore[return-value]


def test_page_and_summary_show_both_and_what_is_left_open(results: SyntheticResults) -> None:
    given = reference(
        {"model": "gpt2", "dataset": "news", "rank": 8, "val_perplexity": 12.4, "tokens_per_second": 3400},
        {"model": "gpt2", "dataset": "code", "val_perplexity": 19.5},
        left_open=["no seed"],
    )
    page, summary = written(build_report(results.store, figures=False, sections=[SECTION], reference=given))
    rows = [line.split(" | ") for line in summary.splitlines() if line.startswith("| gpt2, lora, rank 8 | news | ")]
    (row,) = rows
    assert row[2] == "12.4"
    assert float(row[3].split(" ")[0]) == pytest.approx(perplexity_of(results), rel=0.1)
    assert " to " in row[3]
    assert row[4:6] == ["3,400", "784"]
    for text in (page, summary):
        assert "12.4" in text
        assert "no seed" in text
        assert "Measured here: 1 of 2 results" in text
        assert "rows are no ranking" in " ".join(text.split())


def perplexity_of(results: SyntheticResults) -> float:
    records = [record for record in results.store.read_all()[0] if record.spec.adapter.rank == 8]
    rates = {record.spec.training.learning_rate for record in records}
    return min(
        perplexity_on_disk([one for one in records if one.spec.training.learning_rate == rate], results)[0]
        for rate in rates
    )


def test_outside_text_stays_text(results: SyntheticResults) -> None:
    entry = {"model": "gpt2", "dataset": "news", "val_perplexity": 12.4, "note": HOSTILE}
    given = reference(entry, title=HOSTILE, note=HOSTILE, left_open=[HOSTILE])
    page, summary = written(build_report(results.store, figures=False, sections=[SECTION], reference=given))
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") == 5, "the title names the table, too"
    assert "<img src=x" not in page
    parsed = MarkdownIt("commonmark").enable("table").render(summary)
    assert "<img" not in parsed
    assert "javascript:b" not in "".join(re.findall('href="[^"]*"', parsed))
    assert parsed.count("&lt;img src=x onerror=alert(1)&gt;") == 4


def test_experiments_bring_theirs_and_others_reports_do_not_show_it(results: SyntheticResults) -> None:
    given = reference({"model": "gpt2", "dataset": "news", "val_perplexity": 12.4})
    started, runs = "2026-11-29T10:00:00+00:00", dict.fromkeys(results.store.run_ids()[:4], "news")
    for name, one in (("first", given), ("second", None)):
        write_asked(
            results.store.output_dir, Asked(name=name, started_at=started, is_search=False, runs=runs, reference=one)
        )
    build_report(results.store, figures=False, sections=[SECTION])
    for name, is_shown in (("first", True), ("second", False), ("synthetic", False)):
        summary = results.store.results_dir / "experiments" / name / SUMMARY_NAME
        assert ("Beside results from elsewhere" in summary.read_text(encoding="utf-8")) is is_shown
