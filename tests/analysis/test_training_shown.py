"""Beside a gain stands how much training it was, and whether the text is mostly templates."""

from __future__ import annotations

from pathlib import Path

from lorabench.analysis.analyse import analyse
from lorabench.analysis.findings import Findings
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report
from lorabench.report.headline import headline_of
from lorabench.report.page import PAGE_NAME
from lorabench.report.summary import DETAILS_NAME
from tests.report.synthetic import SyntheticResults, Truth


def findings(folder: Path, seen: float | None) -> Findings:
    results = SyntheticResults(folder, Truth(by_rank={8: 0.05}), num_documents=80)
    for record in results.grid(ranks=[8, 16], seeds=[0, 1, 2]):
        assert record.budget is not None
        budget = record.budget.model_copy(update={"validation_seen": seen, "steps": 9, "train_bytes": 4000})
        results.store.write(record.model_copy(update={"budget": budget}))
    return analyse(results.store.read_all()[0], results.store)


def test_the_gain_says_from_how_much_training(tmp_path: Path) -> None:
    gain, *others = headline_of(findings(tmp_path, 0.03)).reasons
    assert "against the base after 9 steps (4.00 kB, 1 epoch, " in gain
    assert not any("sequences" in sentence for sentence in others)
    build_report(RecordStore(tmp_path), figures=False)
    page = (tmp_path / "results" / PAGE_NAME).read_text(encoding="utf-8")
    assert "3\u00a0% of eight-word sequences occur in train" in page
    assert "9 steps (4.00 kB, 1 epoch, " in (tmp_path / "results" / DETAILS_NAME).read_text(encoding="utf-8")


def test_templates_are_warned_of_on_the_first_screen(tmp_path: Path) -> None:
    reasons = headline_of(findings(tmp_path, 0.62)).reasons[:3]
    assert any(reason.startswith("62\u00a0% of the eight-word sequences of news") for reason in reasons), reasons


def test_records_that_do_not_know_it_are_read(tmp_path: Path) -> None:
    (choice,) = findings(tmp_path, None).recommendations
    assert not any("sequences" in caveat for caveat in choice.caveats)
