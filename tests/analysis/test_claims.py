"""What is not recommended, or not without saying so: one behaviour each, on records made to tempt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lorabench.analysis.analyse import analyse
from lorabench.analysis.findings import Findings, Recommendation
from lorabench.records.schema import Status
from tests.report.synthetic import SyntheticResults, Truth

QUIET = {"noise": 0.003, "seed_deviation": 0.0005, "log_length_deviation": 0.3}
"""Differences of some hundredths are told apart."""


def results_in(folder: Path, truth: Truth, curve: tuple[float, ...] = (0.9, 1.0, 1.0)) -> SyntheticResults:
    return SyntheticResults(folder, truth, num_documents=30, curve=curve)


def analysed(results: SyntheticResults) -> Findings:
    return analyse(results.store.read_all()[0], results.store)


def overall(findings: Findings) -> Recommendation:
    assert findings.overall is not None
    return findings.overall


@pytest.mark.parametrize("status", [Status.DIVERGED, Status.OUT_OF_MEMORY])
def test_a_rate_that_went_wrong_on_a_seed_is_not_recommended_without_saying_so(tmp_path: Path, status: Status) -> None:
    results = results_in(tmp_path, Truth(by_learning_rate={1e-3: 0.05}, **QUIET))
    news = {"datasets": ["news"], "ranks": [8]}
    results.grid(["tiny"], ["news", "stories"], [8], [1e-3], [0, 1, 2])
    results.grid(["tiny"], ["stories"], [8], [3e-3], [0, 1, 2])
    results.grid(learning_rates=[3e-3], seeds=[0, 1], **news)
    results.grid(learning_rates=[3e-3], seeds=[2], status=status, status_reason="at step 3", **news)
    findings = analysed(results)
    ended = {Status.DIVERGED: "diverged", Status.OUT_OF_MEMORY: "ran out of memory"}[status] + " on 1 of 3 seeds"
    on_news, on_stories = findings.recommendations
    assert findings.candidate(on_news.candidates[0]).settings["learning_rate"] == 3e-3
    assert f"It {ended}" in on_news.claim
    assert ended in on_news.standing
    assert not on_news.is_decided
    assert on_stories.is_decided
    assert ended not in on_stories.claim
    assert f"It {ended} of news" in overall(findings).claim
    assert not overall(findings).is_decided
    for caveats in (on_news.caveats, overall(findings).caveats, findings.corpora[0].caveats):
        assert any(ended in caveat for caveat in caveats)


def test_a_rate_that_diverged_with_other_settings_is_said(tmp_path: Path) -> None:
    results = results_in(tmp_path, Truth(by_rank={16: 0.05}, by_learning_rate={1e-3: 0.05}, **QUIET))
    results.grid(ranks=[8, 16], learning_rates=[1e-3], seeds=[0, 1])
    results.grid(ranks=[8], learning_rates=[3e-3], seeds=[0, 1])
    results.grid(ranks=[16], learning_rates=[3e-3], seeds=[0, 1], status=Status.DIVERGED)
    (choice,) = analysed(results).recommendations
    assert "Its rate 0.003 diverged in 2 of 2 runs of tiny with other settings on news" in choice.caveats


def test_a_best_at_the_end_of_the_rates_tried_is_said_for_each_rank(tmp_path: Path) -> None:
    """Rank 16 was given a larger rate too, which diverged: its best is at no end."""
    results = results_in(tmp_path, Truth(by_rank={16: 0.05}, by_learning_rate={1e-4: 0.1, 1e-3: 0.05}, **QUIET))
    results.grid(ranks=[8, 16], learning_rates=[1e-4, 1e-3, 3e-3], seeds=[0, 1])
    results.grid(ranks=[16], learning_rates=[1e-2], seeds=[0, 1], status=Status.DIVERGED)
    findings = analysed(results)
    said = "With rank 8 the lowest is at the largest rate tried (0.003); the best may lie beyond it"
    for axis in (*findings.ranks, *findings.learning_rates):
        assert [caveat for caveat in axis.caveats if "lie beyond" in caveat] == [said]
    assert any("Its rate 0.003 is the largest tried on news" in item for item in findings.recommendations[0].caveats)
    assert any("above 0.003 for tiny" in step for step in findings.next_steps)


def test_rates_at_both_of_whose_ends_the_best_may_be_were_wide_enough(tmp_path: Path) -> None:
    """Nothing tells the rates apart, so which of the two is the lowest with a rank is luck."""
    results = results_in(tmp_path, Truth(noise=0.05))
    results.grid(ranks=[2, 4, 8, 16, 32, 64], learning_rates=[1e-3, 3e-3], seeds=[0, 1])
    findings = analysed(results)
    (corpus,) = findings.corpora
    assert {item.rate_edge for item in corpus.candidates if item.key in corpus.best.tied} >= {"largest", "smallest"}
    assert not any("learning rates" in step for step in findings.next_steps)


def test_rates_of_what_is_told_not_to_be_the_best_are_no_advice(tmp_path: Path) -> None:
    results = results_in(tmp_path, Truth(by_rank={16: 0.2}, by_learning_rate={1e-2: 0.05, 1e-4: 0.05}, **QUIET))
    results.grid(ranks=[8], learning_rates=[1e-4, 1e-3, 1e-2], seeds=[0, 1])
    results.grid(ranks=[16], learning_rates=[1e-4, 1e-3], seeds=[0, 1])
    findings = analysed(results)
    assert any(
        "With rank 16 the lowest is at the largest" in caveat for axis in findings.ranks for caveat in axis.caveats
    )
    assert not any("learning rates above" in step for step in findings.next_steps)


def test_a_best_beside_a_rate_that_diverged_is_at_no_end(tmp_path: Path) -> None:
    results = results_in(tmp_path, Truth(by_learning_rate={1e-4: 0.1}, **QUIET))
    results.grid(ranks=[8], learning_rates=[1e-4, 1e-3], seeds=[0, 1])
    results.grid(ranks=[8], learning_rates=[1e-2], seeds=[0, 1], status=Status.DIVERGED)
    findings = analysed(results)
    assert not any("lie beyond" in caveat for axis in findings.learning_rates for caveat in axis.caveats)
    assert not any("learning rates above" in step for step in findings.next_steps)


@pytest.mark.parametrize(("curve", "is_short"), [((0.4, 0.8, 1.0), True), ((0.9, 1.0, 1.0), False)])
def test_validation_that_still_falls_at_the_end_was_trained_too_short(
    tmp_path: Path, curve: tuple[float, ...], is_short: bool
) -> None:
    results = results_in(tmp_path, Truth(**QUIET), curve)
    results.grid(datasets=["news", "stories"], ranks=[8, 16], seeds=[0, 1])
    findings = analysed(results)
    for choice in (*findings.recommendations, overall(findings)):
        assert any("Training was too short" in caveat for caveat in choice.caveats) is is_short
    assert any("training was too short" in caveat for caveat in findings.corpora[0].caveats) is is_short
    assert any("Train longer" in step for step in findings.next_steps) is is_short


def test_validation_scored_once_cannot_tell_whether_training_was_too_short(tmp_path: Path) -> None:
    results = results_in(tmp_path, Truth(**QUIET), curve=(1.0,))
    results.grid(ranks=[8, 16], seeds=[0, 1])
    findings = analysed(results)
    assert any("scored only once" in sentence for sentence in findings.unanswered)
    assert not any("too short" in caveat for caveat in findings.recommendations[0].caveats)


def test_what_is_worse_than_its_base_on_test_is_not_for_taking(tmp_path: Path) -> None:
    """Validation chose it all the same: test only withdraws the word."""
    results = results_in(tmp_path, Truth(by_rank={16: 0.05}, on_test={8: 0.2}, **QUIET))
    results.grid(datasets=["news", "stories"], ranks=[8, 16], seeds=[0, 1])
    findings = analysed(results)
    for choice in (*findings.recommendations, overall(findings)):
        assert findings.candidate(choice.candidates[0]).settings["rank"] == 8
        assert choice.is_withdrawn
        assert not choice.is_taken
        assert not choice.is_decided
        assert choice.standing == "worse than its base on test"
        assert choice.claim.startswith("Nothing to take")
        assert "on test it is worse than its base" in choice.claim


def test_the_gap_between_the_gains_on_validation_and_on_test_is_said(tmp_path: Path) -> None:
    results = results_in(tmp_path, Truth(by_rank={16: 0.05}, on_test={8: 0.04}, **QUIET))
    results.grid(datasets=["news", "stories"], ranks=[8, 16], seeds=[0, 1])
    findings = analysed(results)
    for choice in (*findings.recommendations, overall(findings)):
        gap = re.fullmatch(r"On test it gains .*\), ([\d.]+) less than on validation", choice.on_test[0])
        assert gap is not None
        assert float(gap[1]) == pytest.approx(0.04, abs=0.005)
    reading = findings.test_of(findings.recommendations[0].candidates[0])
    assert reading is not None
    assert reading.gain_gap == pytest.approx(-0.04, abs=0.005)


def test_all_that_is_tied_is_read_on_test_and_another_order_there_is_said(tmp_path: Path) -> None:
    truth = Truth(by_rank={32: 0.1}, on_test={8: 0.03}, noise=0.02, seed_deviation=0.0005)
    results = results_in(tmp_path, truth)
    results.grid(datasets=["news", "stories"], ranks=[8, 16, 32], seeds=[0, 1])
    results.truth = Truth(by_rank={32: 0.1}, on_test={16: 0.03}, noise=0.02, seed_deviation=0.0005)
    findings = analysed(results)
    for corpus in findings.corpora:
        assert len(corpus.best.tied) > 1
        assert all(findings.test_of(key) is not None for key in corpus.best.tied)
    chosen = [item for item in (*findings.recommendations, overall(findings)) if item.alternatives]
    assert chosen
    for choice in chosen:
        keys = [choice.candidates[0], *choice.alternatives]
        figures = [reading.bits_per_byte for key in keys if (reading := findings.test_of(key))]
        is_lower = any(other and figures[0] and other.estimate < figures[0].estimate for other in figures[1:])
        assert any("Test reverses the order" in item for item in choice.on_test) is is_lower
    ranks = {findings.candidate(choice.candidates[0]).settings["rank"] for choice in chosen}
    if 8 in ranks:
        assert any("rank 16" in item and "is below it by" in item for choice in chosen for item in choice.on_test)


def test_where_the_choice_over_all_loses_is_said(tmp_path: Path) -> None:
    places = {("news", 8): -0.1, ("stories", 8): -0.1, ("medical", 8): 0.04}
    results = results_in(tmp_path, Truth(by_place=places, **QUIET))
    results.grid(datasets=["news", "stories", "medical"], ranks=[8, 16], seeds=[0, 1, 2])
    choice = overall(analysed(results))
    assert choice.is_decided
    assert "It is below the one other configuration on mean; on 2 of 3 corpora by itself" in choice.claim
    (crossover,) = [caveat for caveat in choice.caveats if "is lower than it" in caveat]
    assert crossover.startswith("On medical tiny, rank 16, rate 0.001 is lower than it, by 0.04")


def test_below_each_of_the_others_holds_on_every_corpus_or_says_where_not(tmp_path: Path) -> None:
    results = results_in(tmp_path, Truth(by_rank={16: 0.05}, **QUIET))
    results.grid(datasets=["news", "stories"], ranks=[8, 16], seeds=[0, 1, 2])
    assert "and on each corpus by itself" in overall(analysed(results)).claim
    results.truth = Truth(by_rank={16: 0.05}, by_place={("medical", 16): -0.05}, **QUIET)
    results.grid(datasets=["medical"], ranks=[8, 16], seeds=[0, 1, 2])
    assert "on mean; on 2 of 3 corpora by itself" in overall(analysed(results)).claim


def test_other_precisions_and_contexts_stand_beside_a_decided_recommendation(tmp_path: Path) -> None:
    results = results_in(tmp_path, Truth(by_rank={16: 0.1}, **QUIET))
    results.grid(ranks=[8], seeds=[0, 1])
    results.grid(ranks=[16], seeds=[0, 1], training={"precision": "bf16", "context_length": 256})
    (choice,) = analysed(results).recommendations
    assert choice.is_decided
    assert "Precisions differ among the candidates, and each is scored with its own" in choice.caveats
    assert "Context lengths differ among the candidates, and each is scored with its own" in choice.caveats


def test_with_one_seed_nothing_is_decided(tmp_path: Path) -> None:
    results = results_in(tmp_path, Truth(by_rank={16: 0.1}, **QUIET))
    results.grid(datasets=["news", "stories"], ranks=[8, 16], seeds=[3])
    findings = analysed(results)
    for choice in (*findings.recommendations, overall(findings)):
        assert not choice.is_decided
        assert choice.standing == "lowest, on seed 3 only"
        assert "On seed 3 only, it is below the one other configuration" in choice.claim
    assert all(not corpus.best.is_decided for corpus in findings.corpora)
