"""What a design could detect: the numbers against scipy and simulation, the sentences against known causes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import gammaincinv, stdtrit
from typer.testing import CliRunner

from lorabench.analysis.analyse import analyse
from lorabench.analysis.deciding import measure_spreads
from lorabench.analysis.detectable import (
    Errors,
    Spread,
    chi_square,
    detectable,
    find_reach,
    median_of_variance,
    power,
    split_of,
    student,
)
from lorabench.analysis.rules import document_freedom
from lorabench.analysis.spread import SPREAD_NAME, MeasuredSpread, assumed_seed_deviation, read_spreads, write_spreads
from lorabench.analysis.statistics import compare_pair
from lorabench.cli.main import app
from lorabench.report.build import build_report
from tests.marks import slow
from tests.report.synthetic import SyntheticResults, Truth


@pytest.mark.parametrize("freedom", [1.0, 1.3, 2.0, 3.7, 25.0, 300.0, 5000.0])
def test_quantiles_are_those_of_scipy(freedom: float) -> None:
    for tail in (0.025, 0.0045):
        assert student(freedom, tail) == pytest.approx(-stdtrit(freedom, tail), rel=0.003)
    assert sum(share for share, _ in chi_square(freedom)) == pytest.approx(1.0)
    assert sum(share * value for share, value in chi_square(freedom)) == pytest.approx(1.0, abs=0.01)
    assert median_of_variance(freedom) == pytest.approx(2.0 * gammaincinv(freedom / 2.0, 0.5) / freedom, rel=0.04)


@pytest.mark.parametrize("num_documents", [2, 10, 40, 1000])
def test_degrees_of_freedom_are_those_of_the_intervals(num_documents: int) -> None:
    lengths = np.random.default_rng(0).lognormal(7.0, 1.0, num_documents)
    nothing = np.zeros((1, num_documents))
    expected = float(compare_pair(nothing, nothing, lengths).document_freedom)
    assert document_freedom(lengths) == pytest.approx(expected)
    assert math.isnan(document_freedom(np.array([100.0])))


@pytest.mark.parametrize("num_documents", [10, 40, 200])
@pytest.mark.parametrize("num_seeds", [1, 2, slow(3), slow(5)])
def test_of_differences_of_the_size_named_eighty_in_a_hundred_are_detected(
    num_seeds: int, num_documents: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from measure_power import measure

    random = np.random.default_rng(num_seeds)
    pair, named, planned = measure(random, num_documents, num_seeds, 0.0024, repetitions=250)
    assert 0.75 <= pair <= 0.88
    assert 0.70 <= named <= 0.92
    assert 0.65 <= planned <= 0.92


def test_more_documents_and_more_seeds_detect_less() -> None:
    few, many = Errors(4e-6, 10.0, 1e-6, 3.0), Errors(1e-6, 40.0, 1e-6, 3.0)
    assert (detectable(many) or 0) < (detectable(few) or 0) < (detectable(few, 12) or 0)
    assert (detectable(Errors(1e-6, 40.0, 5e-7, 6.0)) or 0) < (detectable(many) or 0)
    assert detectable(Errors(1e-6, math.nan)) is None
    assert power(many, detectable(many) or 0) == pytest.approx(0.8, abs=0.01)


def test_a_budget_draws_from_all_of_the_text() -> None:
    split = split_of(400_000, 4, (300_000, 50_000, 49_500, 500))
    assert sum(split.scored(12_000).lengths) == pytest.approx(12_000, rel=0.1)
    assert len(split.scored(12_000).lengths) >= 3
    assert split.scored(400_000).lengths == split.lengths
    large = split_of(1e9)
    assert large.scored(50_000).num_documents == pytest.approx(50_000 / 781, rel=0.4)
    assert large.scored(50_000).num_effective <= large.scored(50_000).num_documents
    assert large.num_bytes == pytest.approx(1e9)


def test_what_would_reach_a_difference_is_the_true_cause() -> None:
    split = split_of(2_000_000)
    assert find_reach(split, 100_000, Spread(0.001, 0.0), 1, 1, 0.005).is_reached
    by_text = find_reach(split, 20_000, Spread(0.01, 1e-8), 3, 1, 0.005)
    assert by_text.num_bytes is not None
    assert by_text.num_seeds is None
    by_seeds = find_reach(split, 500_000, Spread(0.0001, 9e-6), 2, 1, 0.005)
    assert by_seeds.num_seeds is not None
    assert by_seeds.num_bytes is None
    both = find_reach(split, 20_000, Spread(0.01, 9e-6), 2, 1, 0.005)
    assert both.needs_both
    assert None not in (both.num_bytes, both.num_seeds)
    neither = find_reach(split, 20_000, Spread(10.0, 1e-3), 2, 1, 0.005)
    assert (neither.is_reached, neither.num_bytes, neither.num_seeds) == (False, None, None)


def test_the_assumed_spread_over_seeds_goes_through_what_was_measured() -> None:
    assert assumed_seed_deviation(3e-4) == pytest.approx(0.0007)
    assert assumed_seed_deviation(3e-3) == pytest.approx(0.0075)
    assert 0.0007 < assumed_seed_deviation(1e-3) < 0.0075


def test_what_was_measured_is_kept_and_damage_is_seen(tmp_path: Path) -> None:
    spreads = {("news", "1" * 40): MeasuredSpread(0.01, None, {0.001: 1e-6})}
    write_spreads(tmp_path / SPREAD_NAME, spreads)
    assert read_spreads(tmp_path / SPREAD_NAME) == spreads
    (tmp_path / SPREAD_NAME).write_text((tmp_path / SPREAD_NAME).read_text().replace("0.01", "0.02"))
    assert read_spreads(tmp_path / SPREAD_NAME) == {}
    assert read_spreads(tmp_path / "missing.json") == {}


def steps(tmp_path: Path, truth: Truth, seeds: tuple[int, ...], num_documents: int = 40) -> str:
    """The next steps of synthetic runs at three ranks."""
    results = SyntheticResults(tmp_path, truth, num_documents=num_documents)
    results.grid(ranks=(8, 16, 32), seeds=seeds)
    findings = analyse(results.store.read_all()[0], results.store)
    assert findings.corpora[0].detectable is not None
    assert all(len(step.split()) <= 30 for step in findings.next_steps)
    return " | ".join(findings.next_steps)


def test_the_next_step_is_seeds_where_seeds_differ(tmp_path: Path) -> None:
    truth = Truth(seed_deviation=0.02, noise=0.001, by_rank={8: 0.02, 16: 0.04})
    assert "seeds instead of 2 would tell rank" in steps(tmp_path, truth, (0, 1))


def test_the_next_step_is_text_where_documents_differ(tmp_path: Path) -> None:
    truth = Truth(seed_deviation=0.0, noise=0.1, by_rank={8: 0.015, 16: 0.03})
    assert "validation text" in steps(tmp_path, truth, (0, 1, 2), num_documents=15)


def test_a_tie_that_costs_nothing_does_not_matter(tmp_path: Path) -> None:
    truth = Truth(seed_deviation=0.0, noise=0.002)
    assert "does not matter" in steps(tmp_path, truth, (0, 1, 2))


def test_planning_reads_what_reports_measured_without_scipy(tmp_path: Path) -> None:
    code = f"""
import json, sys
from pathlib import Path
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import build_experiment
values = dict(name="x", models="gpt2-mini", datasets=["news", "medical"], adapter=dict(rank=[8, 16]), seeds=[0, 1])
values |= dict(training=dict(context_length=128), evaluation=dict(validation_bytes=12000))
plan = make_plan(build_experiment(values))
before = set(sys.modules)
from lorabench.records.store import RecordStore
from lorabench.analysis.designs import detections, known_spreads
from lorabench.analysis.spread import MeasuredSpread, write_spreads
store = RecordStore(Path({str(tmp_path)!r}))
news = ("news", plan.groups[0].dataset.revision)
write_spreads(store.results_dir / "spread.json", {{news: MeasuredSpread(0.001, None, {{0.0003: 1e-8}})}})
found = detections(plan, known_spreads(plan, store), 0.005)
new = {{"scipy", "pyarrow", "torch"}} & (set(sys.modules) - before)
print(json.dumps([[item.to_json() for item in found], sorted(new)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (news, medical), imported = json.loads(done.stdout)
    assert imported == []
    assert (news["is_measured"], medical["is_measured"]) == (True, False)
    assert news["configurations"] < medical["configurations"] == medical["best"]
    assert medical["reach"]["num_bytes"] is None or medical["reach"]["num_bytes"] > 12000


def test_a_plan_measures_runs_that_no_report_has_seen(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(noise=0.05))
    results.grid(ranks=(8, 16, 32), seeds=(0, 1))
    records = results.store.read_all()[0]
    spreads = measure_spreads(records, results.store)
    measured = spreads["news", "2" * 40]
    assert measured.configurations is not None
    assert measured.models is None
    assert list(measured.seeds) == [0.001]
    build_report(results.store, figures=False)
    assert read_spreads(results.store.results_dir / SPREAD_NAME) == spreads


def test_plan_says_what_would_detect_a_difference(tmp_path: Path) -> None:
    values = "{name: x, models: gpt2-mini, datasets: news, adapter: {rank: [8, 16, 32]}, seeds: [0, 1]}"
    (tmp_path / "x.yaml").write_text(values)
    command = ["plan", str(tmp_path / "x.yaml"), "--output-dir", str(tmp_path), "--set", "training.context_length=128"]
    shown = CliRunner().invoke(app, [*command, "--detect", "0.005"])
    assert "for 0.005" in shown.stdout
    assert "best of 3" in shown.stdout
    told = json.loads(CliRunner().invoke(app, [*command, "--detect", "0.005", "--json"]).stdout)
    assert told["detectable"][0]["reach"]["difference"] == 0.005
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["detectable"][0]["reach"] is None
