"""The study of LoRA's claims: its runs are those that its experiments ask for, and its tables those of its figures."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lorabench.core.device import choose_device
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import load_experiment

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "docs" / "studies" / "lora_claims"


def test_its_runs_are_those_that_its_experiments_ask_for(cache: Path) -> None:
    plans = [make_plan(load_experiment(path), choose_device("cpu")) for path in sorted(STUDY.glob("*.yaml"))]
    runs = pd.read_csv(STUDY / "runs.csv")
    assert {run.run_id for plan in plans for run in plan.runs} == set(runs["run_id"])
    assert set(runs["status"]) == {"completed"}


def test_each_figure_is_that_of_its_documents() -> None:
    runs, documents = pd.read_csv(STUDY / "runs.csv"), pd.read_csv(STUDY / "documents.csv")
    for run_id, figure in zip(runs["run_id"], runs["val_bits_per_byte"], strict=True):
        bits = documents[run_id].sum() / np.log(2.0) / documents["bytes"].sum()
        assert bits == pytest.approx(figure, abs=2e-6), run_id


def test_the_tables_are_in_the_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script: Any = importlib.import_module("lora_claims")
    script.print_tables(script.read_panel())
    text = (STUDY.parent / "lora_claims.md").read_text(encoding="utf-8")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) > 40
    assert [row for row in rows if row not in text] == []
