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


def findings(folder: Path, seen: float | None, steps: int = 9, also_on: tuple[str, ...] = ()) -> Findings:
    results = SyntheticResults(folder, Truth(by_rank={8: 0.05}), num_documents=80, also_on=also_on)
    for record in results.grid(ranks=[8, 16], seeds=[0, 1, 2]):
        assert record.budget is not None
        budget = record.budget.model_copy(update={"validation_seen": seen, "steps": steps, "train_bytes": 4000})
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


def test_the_warning_stands_before_the_figure_on_test(tmp_path: Path) -> None:
    _, elsewhere, templates, test, *_ = headline_of(findings(tmp_path, 0.62, also_on=("medical",))).reasons
    assert "medical" in elsewhere
    assert "templates" in templates
    assert test.startswith("On test")


def test_runs_of_a_few_steps_are_to_be_longer(tmp_path: Path) -> None:
    assert (
        findings(tmp_path, 0.03)
        .next_steps[0]
        .startswith("Train longer (`training.train_bytes`) on news: after 9 steps")
    )
    assert not any("9 steps" in step or "40 steps" in step for step in findings(tmp_path, 0.03, steps=40).next_steps)


def test_records_that_do_not_know_it_are_read(tmp_path: Path) -> None:
    (choice,) = findings(tmp_path, None).recommendations
    assert not any("sequences" in caveat for caveat in choice.caveats)
