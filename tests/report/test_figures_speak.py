"""What the figures say: titles that are findings, colours and texts by what varied, one unit, no noise as a spread."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from lorabench.records.schema import RunRecord
from lorabench.report.build import build_report
from lorabench.report.curves import leaving, norm_finding, rate_finding
from lorabench.report.page_figures import figures_payload
from lorabench.report.picture import Panel, Picture
from lorabench.report.section import Report
from tests.report.first_screen import FOLDERS, report_of
from tests.report.synthetic import SyntheticResults, Truth

RATES = (1e-4, 1e-3)


def reported(results: SyntheticResults) -> Report:
    return build_report(results.store, figures=False).reports[0]


def picture(report: Report, name: str) -> Picture:
    return next(item for item in report.pictures if item.name == name)


def panel(report: Report, name: str, label: str) -> Panel:
    found = next(item for item in picture(report, name).panels if item.label == label)
    assert isinstance(found, Panel)
    return found


def at_speeds(folder: Path, by_rank: dict[int, float], spread: float) -> Report:
    """Two rates and two seeds of each rank, the speeds of one rank `spread` (a share) apart."""
    results = SyntheticResults(folder)
    for rank, speed in by_rank.items():
        records = results.grid(ranks=[rank], learning_rates=RATES, seeds=[0, 1])
        for place, record in enumerate(records):
            assert record.speed is not None
            own = speed * (1.0 + spread * place / (len(records) - 1))
            results.store.write(
                record.model_copy(update={"speed": record.speed.model_copy(update={"tokens_per_second": own})})
            )
    return reported(results)


def test_what_was_scored_once_is_not_said_to_have_levelled_off(tmp_path: Path) -> None:
    for curve, said in (
        ((1.0,), "was scored only once a run"),
        ((0.99, 1.0, 1.0), "had levelled off at the end of all 2"),
    ):
        results = SyntheticResults(tmp_path / str(len(curve)), curve=curve)
        results.grid(ranks=[8, 16])
        drawn = picture(reported(results), "training_curves").panels[0]
        assert f"Validation {said}" in drawn.finding


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_every_title_is_a_finding(tmp_path: Path, name: str) -> None:
    for item in report_of(name, tmp_path).reports[0].pictures:
        assert all(len(one.finding.split()) > 3 for one in item.panels), item.name


def test_points_of_one_model_are_told_apart_by_what_varied(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, also_on=("wiki",))
    results.grid(ranks=[16, 8], learning_rates=RATES)
    report = reported(results)
    for name, label in (("quality_by_cost", "news · adapter size"), ("gain_against_drift", "news → wiki")):
        series = [one for one in panel(report, name, label).series if not one.is_front]
        assert [one.name for one in series] == ["rank 8", "rank 16"]
        assert [one.colour for one in series] == [0, 1]
        assert {point.text for one in series for point in one.points} == {"rate 0.0001", "rate 0.001"}
    drawn = figures_payload(report.pictures)["gain_against_drift"][0]["data"][0]
    assert drawn["mode"] == "markers+text"
    assert sorted(drawn["text"]) == ["rate 0.0001", "rate 0.001"]


def test_points_of_several_models_have_the_colours_of_the_models(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, also_on=("wiki",))
    results.grid(["b", "a"], ranks=[8, 16], learning_rates=[1e-4, 1e-3, 3e-3, 1e-2])
    report = reported(results)
    for name, label in (("gain_over_base", "news"), ("gain_against_drift", "news → wiki")):
        assert [(one.name, one.colour) for one in panel(report, name, label).series] == [("a", 0), ("b", 1)]
    drawn = figures_payload(report.pictures)["gain_against_drift"][0]["data"][0]
    assert "text" not in drawn, "sixteen texts have no room"


def gain_of(record: RunRecord) -> float:
    assert record.base_validation is not None
    assert record.validation is not None
    nats = record.base_validation.negative_log_likelihood - record.validation.negative_log_likelihood
    return nats / math.log(2.0) / record.validation.num_bytes


def test_the_gain_of_every_configuration_is_shown(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_rank={8: 0.03}))
    records = results.grid(ranks=[8, 16], learning_rates=RATES)
    report = reported(results)
    found = panel(report, "gain_over_base", "news")
    shown = sorted((point.y, point.x) for one in found.series for point in one.points)
    assert [place for place, _ in shown] == [0, 1, 2, 3]
    assert [gain for _, gain in shown] == pytest.approx(sorted(map(gain_of, records), reverse=True))
    best = max(records, key=gain_of).spec
    assert found.ticks[0][1] == f"rank {best.adapter.rank}, rate {best.training.learning_rate:g}"
    assert found.finding.startswith(f"{found.ticks[0][1]} gains ")
    assert len(picture(report, "gain_over_base").rows) == 4


def test_speed_within_its_own_spread_is_one_value(tmp_path: Path) -> None:
    report = at_speeds(tmp_path, {8: 800.0, 16: 808.0}, spread=0.04)
    assert [one.label for one in picture(report, "quality_by_cost").panels] == ["news · memory", "news · adapter size"]
    page = (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    assert "On news speed is one value, 820 tokens/s: like runs differ by 3.9 %" in page
    assert "On news speed is one value" in (tmp_path / "results" / "results_summary.md").read_text(encoding="utf-8")
    assert not any("speed" in row[-1] for row in picture(report, "quality_by_cost").rows)


def test_speed_beyond_its_spread_has_an_axis_that_is_no_narrower(tmp_path: Path) -> None:
    report = at_speeds(tmp_path, {8: 800.0, 16: 900.0}, spread=0.04)
    found = panel(report, "quality_by_cost", "news · speed")
    assert found.least_x is not None
    low, high = found.least_x
    speeds = [point.x for one in found.series for point in one.points]
    assert (high - low) / 2.0 >= 2.0 * 0.039 * sorted(speeds)[len(speeds) // 2] * 0.9
    assert found.finding.endswith("bits per byte worse") or "nothing else is faster" in found.finding


def diverging(folder: Path) -> Report:
    """Two ranks at three rates, the last of which ruins the model."""
    results = SyntheticResults(folder, Truth(by_learning_rate={3e-3: 0.01, 1.0: 6.1}), also_on=("wiki",))
    results.grid(ranks=[8, 16], learning_rates=[1e-3, 3e-3, 1.0])
    return reported(results)


def test_what_is_far_worse_than_the_base_stands_at_the_edge_and_is_named(tmp_path: Path) -> None:
    report = diverging(tmp_path)
    (corpus,) = report.findings.corpora
    highest = max(item.bits_per_byte.estimate for item in corpus.candidates)
    for name, label, axis, end in (
        ("rank_by_learning_rate", "news · tiny", "y", f"up to {highest:.1f}, are drawn at the edge"),
        ("quality_by_cost", "news · memory", "y", f"up to {highest:.1f}, are drawn at the edge"),
        ("gain_over_base", "news", "x", "are drawn at the edge"),
        ("gain_against_drift", "news → wiki", "x", "are drawn at the edge"),
    ):
        found = panel(report, name, label)
        points = [point for one in found.series if not one.is_front for point in one.points]
        far = [getattr(point, axis) for point in points if point.is_far]
        near = [getattr(point, axis) for point in points if not point.is_far]
        ends = [end for point in points if name != "gain_against_drift" for end in (point.low, point.high) if end]
        spread = [*near, *ends, *(found.least_x or () if axis == "x" else ())]
        room = 0.101 * (max(spread) - min(spread))
        assert len(far) == 2, name
        assert all(min(spread) - room <= value <= max(spread) + room for value in far), name
        assert all(value <= min(near) if axis == "x" else value >= max(near) for value in far), name
        assert "; 2 far worse than the base, " in found.finding
        assert found.finding.endswith(end)
        assert f"{highest:.2f}" in " ".join(line for point in points for line in point.lines) or axis == "x", name


def test_the_axis_of_gains_shows_zero(tmp_path: Path) -> None:
    """So that a gain looks as large as it is, and what is worse than the base stands on the other side of it."""
    report = diverging(tmp_path)
    found = panel(report, "gain_over_base", "news")
    assert all(point.x < 0.0 for one in found.series for point in one.points if point.is_far)
    drawn = next(one for one in figures_payload(report.pictures)["gain_over_base"] if one["label"] == "news")
    low, high = drawn["layout"]["xaxis"]["range"]
    ends = [end for one in found.series for point in one.points for end in (point.low, point.high) if end is not None]
    assert low < 0.0 < min(ends) < max(ends) < high


def test_a_figure_somewhat_worse_than_the_base_is_not_far(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_learning_rate={3e-3: 0.25}))
    results.grid(ranks=[8], learning_rates=[1e-3, 3e-3])
    found = panel(reported(results), "rank_by_learning_rate", "news · tiny")
    assert not any(point.is_far for one in found.series for point in one.points)
    assert "drawn at the edge" not in found.finding


def test_where_all_is_far_nothing_is_moved(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(gain=-6.0))
    records = results.grid(ranks=[8, 16])
    found = panel(reported(results), "rank_by_learning_rate", "news · tiny")
    figures = [record.validation.bits_per_byte for record in records if record.validation is not None]
    assert sorted(point.y for one in found.series for point in one.points) == pytest.approx(sorted(figures))


def curve(training: list[float], rates: list[float], norms: list[float]) -> dict[str, Any]:
    steps = list(range(1, len(training) + 1))
    peak = [max(norms) / sorted(norms)[len(norms) // 2], steps[norms.index(max(norms))]]
    return {"step": steps, "training": training, "learning_rate": rates, "gradient_norm": norms, "norm_peak": peak,
            "evaluated": [[steps[-1], training[-1]]], "most": 1.25 * training[0]}  # fmt: skip


def test_curves_are_titled_by_what_they_show() -> None:
    calm = curve([1.2, 1.1, 1.0], [1e-4, 1e-3, 0.0], [1.0, 1.2, 1.1])
    wild = curve([1.2, 3.0, 7.31], [1e-3, 1e-2, 0.0], [1.0, 1.0, 40.0])
    assert leaving([calm]) == ""
    assert leaving([calm, wild]) == "1 of 2 runs leaves the axis, up to 7.3"
    assert rate_finding([calm]) == "The learning rate is at most 0.001 and ends at 0"
    assert rate_finding([calm, wild]) == "The learning rate is at most 0.001 to 0.01 and ends at 0"
    assert norm_finding([calm, wild]) == "The gradient norm is at most 40 times its run's median, at step 3"
    assert rate_finding([]) == norm_finding([]) == ""
