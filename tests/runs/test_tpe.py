"""`strategy: tpe`: what is proposed, that it follows from the records alone, and that it finds what is good."""

from __future__ import annotations

import importlib.util
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lorabench
from lorabench.core.errors import ConfigError, MissingExtraError
from lorabench.experiment.plan import Plan, PlannedRun
from lorabench.experiment.schema import RunSpec
from lorabench.records.schema import Evaluation, Scores, Status
from lorabench.records.store import RecordStore, load_records
from lorabench.runs.growing import Growing, with_proposal
from lorabench.runs.searching import strategy_of
from lorabench.runs.strategy import Standing, Strategy
from tests.runs.conftest import ExperimentWriter
from tests.runs.test_search import TRAINING, decisions

pytest.importorskip("optuna", reason="the extra search is not installed")

RATES = {"log_uniform": [1.0e-5, 1.0e-1]}


def write(experiment: ExperimentWriter, runs: int = 14, **changes: Any) -> Path:
    sections: dict[str, Any] = {
        "adapter": {"rank": {"log_uniform": [1, 8]}},
        "training": {**TRAINING, "learning_rate": RATES},
        "search": {"strategy": "tpe", "budget": {"runs": runs}, "keep": 1, "seeds_at_the_end": 2},
        "evaluation": {"validation_bytes": 1200, "test_bytes": 1200, "samples": 0, "times": 1},
    }
    return experiment(**{**sections, **changes})


def figure(spec: RunSpec) -> float:
    """As though runs scored this: best at a rate of 0.003 and rank 4."""
    return 1.0 + abs(math.log10(spec.training.learning_rate / 3e-3)) + 0.1 * abs(math.log2(spec.adapter.rank / 4))


def standing(run: PlannedRun, status: Status = Status.COMPLETED) -> Standing:
    scores = Scores(
        negative_log_likelihood=figure(run.spec) * 1000 * math.log(2.0),
        num_tokens=250,
        num_bytes=1000,
        num_words=160,
        num_documents=5,
    )
    return Standing(run.run_id, status, 9, 9, (Evaluation(step=9, train_tokens_seen=100, validation=scores),))


def searched(plan: Plan, told: Callable[[PlannedRun], Standing], limit: int = 1000) -> tuple[list[str], list[str]]:
    """The ids of what is proposed and of what is asked for, where each run scores what `told` says."""
    strategy: Strategy = strategy_of(plan.experiment, "matrix", RecordStore(Path("nowhere")))(plan.runs)
    assert isinstance(strategy, Growing)
    proposed, asked, planned = [], [], dict[str, PlannedRun]()
    for _ in range(limit):
        for proposal in strategy.proposals():
            plan, runs = with_proposal(plan, proposal)
            strategy.add(proposal, runs)
            proposed.append(runs[0].run_id)
            planned |= {run.run_id: run for run in runs}
        request = strategy.ask()
        if request is None:
            break
        asked.append(request.run_id)
        strategy.tell(told(planned[request.run_id]))
    return proposed, asked


def test_proposals_are_better_than_what_is_drawn_and_the_best_gets_more_seeds(experiment: ExperimentWriter) -> None:
    plan = lorabench.plan(write(experiment, runs=30))
    figures: dict[str, float] = {}

    def scored(run: PlannedRun) -> Standing:
        figures[run.run_id] = figure(run.spec)
        return standing(run)

    proposed, asked = searched(plan, scored)
    assert proposed[:10] == [run.run_id for run in plan.runs if run.spec.seed == 0], "what the plan lists comes first"
    assert (len(proposed), len(set(proposed)), asked[:30]) == (30, 30, proposed)
    assert statistics.median(figures[run_id] for run_id in proposed[20:]) < 0.5 + 0.5 * statistics.median(
        figures[run_id] for run_id in proposed[:10]
    )
    lowest = min(proposed, key=figures.__getitem__)
    (more,) = asked[30:]
    assert more.split("-s1_")[0] == lowest.split("-s0_")[0]


def test_what_did_not_complete_counts_as_worst(experiment: ExperimentWriter) -> None:
    plan = lorabench.plan(write(experiment, runs=22))

    def fails_when_fast(run: PlannedRun) -> Standing:
        return standing(run, Status.DIVERGED if run.spec.training.learning_rate > 1e-3 else Status.COMPLETED)

    proposed, asked = searched(plan, fails_when_fast)
    assert len(proposed) == 22
    rates = [float(run_id.split("-lr")[1].split("-s0")[0]) for run_id in proposed]
    assert sum(rate > 1e-3 for rate in rates[14:]) < sum(rate > 1e-3 for rate in rates[:8])
    assert searched(plan, fails_when_fast) == (proposed, asked), "the same figures propose the same"
    assert searched(plan, standing)[0] != proposed


def test_a_larger_budget_begins_with_the_same(experiment: ExperimentWriter) -> None:
    small, _ = searched(lorabench.plan(write(experiment, runs=16)), standing)
    large, _ = searched(lorabench.plan(write(experiment, runs=24)), standing)
    assert large[:16] == small


def test_without_the_extra_it_says_how_to_install_it(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(experiment)
    lorabench.plan(path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("lorabench.core.errors.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lorabench\[search\]'"):
        lorabench.run(path, tmp_path / "out", trackers=["none"])
    with pytest.raises(ConfigError, match="takes its settings from the experiment"):
        lorabench.run(
            path,
            tmp_path / "out",
            trackers=["none"],
            overrides=["search=null", "training.learning_rate=1e-3", "adapter.rank=2"],
            strategy="tpe",
        )


@pytest.mark.slow
def test_a_search_by_tpe_that_is_killed_proposes_the_same(experiment: ExperimentWriter, tmp_path: Path) -> None:
    """SIGKILL just before changes of files: the records alone say what was tried, and what is proposed next."""
    path = write(experiment, runs=13)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    outcome = lorabench.run(path, whole, trackers=["none"])
    assert (outcome.exit_code, outcome.num_runs) == (0, 14)
    records = load_records(whole)
    assert {record.status for record in records} == {Status.COMPLETED}
    first = {run.run_id for run in lorabench.plan(path).runs}
    assert len({record.run_id for record in records} - first) >= 3
    command = [sys.executable, "-m", "tests.runs.killing", str(path), str(killed), "6", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert "killed 6 times" in done.stdout, done.stderr
    assert decisions(killed) == decisions(whole)
    again = lorabench.run(path, whole, trackers=["none"])
    assert (again.num_skipped, again.exit_code) == (14, 0)
