"""A run may be called by less than its whole id, by its folder, or as the best of its corpus."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorabench.cli.run_names import resolve_run
from lorabench.core.errors import InputError, UnknownNameError
from lorabench.records.asked import Asked, write_asked
from lorabench.records.schema import RunRecord
from tests.report.synthetic import SyntheticResults, Truth


def results(folder: Path, *datasets: str) -> list[RunRecord]:
    """Rank 16 is the best of every corpus, on three seeds."""
    synthetic = SyntheticResults(folder, Truth(by_rank={8: 0.05}))
    return synthetic.grid(datasets=list(datasets), ranks=[8, 16], seeds=[0, 1, 2])


def lowest(records: list[RunRecord], dataset: str) -> str:
    figures = {
        record.run_id: record.validation.bits_per_byte
        for record in records
        if record.spec.dataset == dataset and record.validation is not None
    }
    return min(figures, key=lambda run_id: figures[run_id])


def test_an_id_its_beginning_and_its_digits(tmp_path: Path) -> None:
    for record in results(tmp_path, "news"):
        digits = record.run_id.rpartition("_")[2]
        for name in (record.run_id, record.run_id[:-2], digits, digits[:7]):
            assert resolve_run(name, tmp_path) == (record.run_id, tmp_path), name


def test_what_means_several_runs_or_none_is_refused(tmp_path: Path) -> None:
    first = results(tmp_path, "news")[0].run_id
    with pytest.raises(InputError, match="6 runs are called so; type more of"):
        resolve_run(first[:6], tmp_path)
    with pytest.raises(UnknownNameError, match="no record of such a run"):
        resolve_run("nothing-like-it", tmp_path)
    with pytest.raises(UnknownNameError):
        resolve_run("", tmp_path)


def test_the_folder_of_a_run_brings_its_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = results(tmp_path / "mine", "news")[0].run_id
    monkeypatch.chdir(tmp_path / "mine")
    for name in (f"runs/{run_id}", f"runs/{run_id}/", str(tmp_path / "mine" / "runs" / run_id)):
        assert resolve_run(name, Path("outputs")) == (run_id, tmp_path / "mine"), name
    with pytest.raises(InputError, match="this is not the folder of a run"):
        resolve_run("runs/", Path("outputs"))


def test_the_best_is_the_lowest_seed_of_what_is_recommended(tmp_path: Path) -> None:
    records = results(tmp_path / "one", "news")
    assert resolve_run("best", tmp_path / "one")[0] == lowest(records, "news")
    assert resolve_run("best:news", tmp_path / "one")[0] == lowest(records, "news")
    records = results(tmp_path / "two", "news", "medical")
    assert resolve_run("best:medical", tmp_path / "two")[0] == lowest(records, "medical")
    with pytest.raises(InputError, match="there are 2 corpora, each with its own best; accepted: best:medical and"):
        resolve_run("best", tmp_path / "two")
    with pytest.raises(InputError, match=r"best:code: there is no such corpus in .*; accepted: best:medical and"):
        resolve_run("best:code", tmp_path / "two")


def test_where_nothing_is_recommended_there_is_no_best(tmp_path: Path) -> None:
    SyntheticResults(tmp_path / "worse", Truth(gain=-0.2)).grid(ranks=[8, 16], seeds=[0, 1, 2])
    with pytest.raises(InputError, match="best: nothing is recommended for news; give a run's id"):
        resolve_run("best", tmp_path / "worse")
    with pytest.raises(InputError, match="no run has a result"):
        resolve_run("best", tmp_path / "empty")


def test_experiments_that_disagree_are_never_mixed(tmp_path: Path) -> None:
    """Each by itself as its report says it; the lowest of both is not the answer to both."""
    ranks = SyntheticResults(tmp_path, Truth(by_rank={8: 0.05}), experiment="ranks")
    first = ranks.grid(ranks=[8, 16], seeds=[0, 1, 2])
    rates = SyntheticResults(tmp_path, Truth(by_learning_rate={3e-4: 0.05}, gain=0.1), experiment="rates")
    second = rates.grid(["gpt2"], ranks=[8], learning_rates=[3e-4, 1e-3], seeds=[0, 1, 2])
    for name in ("best:ranks", "best:ranks:news"):
        assert resolve_run(name, tmp_path)[0] == lowest(first, "news"), name
    assert resolve_run("best:rates", tmp_path)[0] == lowest(second, "news")
    with pytest.raises(InputError, match=r"2 experiments on news, .*; accepted: best:(ranks|rates)"):
        resolve_run("best", tmp_path)
    with pytest.raises(InputError, match=r"best:news: there are 2 experiments .* best:ranks:news"):
        resolve_run("best:news", tmp_path)
    with pytest.raises(InputError, match=r"best:third: there is no such corpus or experiment .* best:news"):
        resolve_run("best:third", tmp_path)
    rates.grid(["gpt2"], ["medical"], ranks=[8], learning_rates=[3e-4, 1e-3], seeds=[0, 1, 2])
    with pytest.raises(InputError, match=r"best:rates: there are 2 corpora, .* best:rates:news"):
        resolve_run("best:rates", tmp_path)


def test_experiments_that_share_the_recommended_run_have_one_best(tmp_path: Path) -> None:
    records = results(tmp_path, "news")
    runs = {record.run_id: "news" for record in records}
    for name in ("first", "second"):
        write_asked(tmp_path, Asked(name=name, started_at="2026-11-25T11:00:00+00:00", is_search=False, runs=runs))
    for name in ("best", "best:news", "best:second"):
        assert resolve_run(name, tmp_path)[0] == lowest(records, "news"), name


def test_the_command_takes_it(tmp_path: Path) -> None:
    records = results(tmp_path / "outputs", "news")
    command = [sys.executable, "-m", "lorabench", "show", "best:news"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert lowest(records, "news") in done.stdout.replace("\n", "")
