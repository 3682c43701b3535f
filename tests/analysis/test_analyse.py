"""What is claimed of records whose truth is known, and what is not claimed of designs that cannot tell."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from lorabench.analysis.analyse import analyse, choose
from lorabench.analysis.findings import Findings, Verdict
from lorabench.analysis.validation import DocumentReader, ValidationRun, read_validation_runs, validation_run
from lorabench.experiment.schema import EvaluationSettings, RunSpec, TrainingSettings
from lorabench.methods.settings import AdapterSettings
from lorabench.records.documents import DocumentResults
from lorabench.records.schema import RunRecord, Scores, Status
from lorabench.records.store import RecordStore
from tests.marks import slow
from tests.report.synthetic import ENVIRONMENT, LN2, SyntheticResults, Truth

RATES = (1e-4, 1e-3, 3e-3)


def analysed(results: SyntheticResults) -> Findings:
    return analyse(results.store.read_all()[0], results.store)


def test_a_clear_best_is_named_with_its_interval_and_what_it_beat(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_rank={8: 0.05, 16: 0.1}, noise=0.005), num_documents=80)
    results.grid(ranks=[8, 16, 32], seeds=[0, 1, 2])
    findings = analysed(results)
    (corpus,) = findings.corpora
    best = findings.candidate(corpus.best.lowest or "")
    assert best.settings["rank"] == 32
    assert corpus.best.is_decided
    assert {item.verdict for item in corpus.best.comparisons} == {Verdict.NOT_THE_BEST}
    assert all(item.difference is not None and item.difference.excludes_zero for item in corpus.best.comparisons)
    assert "Best on news: tiny, rank 32" in corpus.best.claim
    assert "95 % interval" in corpus.best.claim
    (rank,) = findings.ranks
    assert rank.claim.startswith("Best rank for tiny on news: 32")
    assert [level.shown for level in rank.levels if level.is_tied_best] == ["32"]
    assert any("Only one learning rate" in caveat for caveat in rank.caveats)
    assert findings.ties == {"news": frozenset(best.run_ids)}


def test_equals_are_no_detectable_difference(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(), num_documents=60)
    results.grid(ranks=[8, 16, 32], seeds=[0, 1])
    findings = analysed(results)
    (corpus,) = findings.corpora
    assert not corpus.best.is_decided
    assert corpus.best.cost_at_most[corpus.best.lowest or ""] < 0.01
    assert findings.ranks[0].claim.startswith("No detectable difference in rank")
    assert len(findings.ties["news"]) == 2 * len(corpus.best.tied) > 2


def test_ranks_are_compared_at_the_best_rate_of_each(tmp_path: Path) -> None:
    """Rank 8 is better at every shared rate but rank 32 was tuned to where it is better."""
    truth = Truth(by_rank={8: 0.0, 32: -0.03}, by_learning_rate={1e-4: 0.2, 1e-3: 0.0, 3e-3: 0.1}, noise=0.002)
    results = SyntheticResults(tmp_path, truth, num_documents=60)
    results.grid(ranks=[8, 32], learning_rates=RATES, seeds=[0, 1])
    findings = analysed(results)
    (rank,) = findings.ranks
    for level in rank.levels:
        assert findings.candidate(level.candidate or "").settings["learning_rate"] == 1e-3
        assert level.num_candidates == 3
    assert any("best of 3 learning rates" in caveat for caveat in rank.caveats)
    (rate,) = findings.learning_rates
    assert rate.claim.startswith("Best learning rate for tiny on news: 0.001")


def test_one_seed_is_said_wherever_something_is_claimed(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_rank={8: 0.1}, noise=0.005), num_documents=60)
    results.grid(ranks=[8, 16], seeds=[4])
    findings = analysed(results)
    assert "on seed 4 only" in findings.corpora[0].best.claim
    assert "on seed 4 only" in findings.ranks[0].claim
    assert any("One seed" in caveat for caveat in findings.recommendations[0].caveats)
    assert any("one seed" in sentence for sentence in findings.unanswered)
    assert findings.corpora[0].candidates[0].bits_per_byte.note == "on seed 4 only"


def test_with_one_model_there_is_no_best_model(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    results.grid()
    hierarchy = analysed(results).hierarchy
    assert not hierarchy.is_answered
    assert "Only one model was tried (tiny)" in hierarchy.claim
    assert hierarchy.ranking == ()


def test_a_model_for_each_corpus_ranks_no_models(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_model={"b": -0.5}))
    results.grid(models=["a"], datasets=["news"])
    results.grid(models=["b"], datasets=["stories"])
    findings = analysed(results)
    assert not findings.hierarchy.is_answered
    assert "never two on the same documents" in findings.hierarchy.claim


def test_a_rank_for_each_model_ranks_no_models(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_model={"b": -0.5}))
    results.grid(models=["a"], ranks=[8])
    results.grid(models=["b"], ranks=[32])
    findings = analysed(results)
    assert not findings.hierarchy.is_answered
    assert "cannot be told apart from what else differed" in findings.hierarchy.per_corpus[0].claim
    assert any("model and rank cannot be told apart" in sentence for sentence in findings.unanswered)
    assert findings.hierarchy.ranking == ()


def test_only_settings_that_all_models_were_tried_with_count(tmp_path: Path) -> None:
    """Model b is better at a rate that a was never given; at the shared one they are equal."""
    results = SyntheticResults(tmp_path, Truth(by_learning_rate={3e-3: -0.3}, noise=0.002), num_documents=60)
    results.grid(models=["a", "b"], ranks=[8], learning_rates=[1e-3], seeds=[0, 1])
    results.grid(models=["b"], ranks=[8], learning_rates=[3e-3], seeds=[0, 1])
    findings = analysed(results)
    (axis,) = findings.hierarchy.per_corpus
    assert all(findings.candidate(level.candidate or "").settings["learning_rate"] == 1e-3 for level in axis.levels)
    assert findings.hierarchy.claim.startswith("No detectable difference")


def test_models_are_ranked_over_the_corpora_they_share(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_model={"b": 0.1, "c": 0.1}, noise=0.005), num_documents=60)
    results.grid(models=["a", "b", "c"], datasets=["news", "stories"], ranks=[8, 16], seeds=[0, 1])
    results.grid(models=["a"], datasets=["medical"], ranks=[8], seeds=[0, 1])
    hierarchy = analysed(results).hierarchy
    assert hierarchy.claim.startswith("Best model over 2 corpora: a with")
    assert hierarchy.corpora == ("news", "stories")
    assert [item.is_tied_best for item in hierarchy.ranking] == [True, False, False]
    assert hierarchy.ranking[0].num_corpora_best == 2
    assert any("medical" in caveat for caveat in hierarchy.caveats)


def test_other_documents_of_a_corpus_are_compared_with_none(tmp_path: Path) -> None:
    SyntheticResults(tmp_path, Truth(), num_documents=40).grid(ranks=[8])
    results = SyntheticResults(tmp_path, Truth(gain=0.6), num_documents=50)
    results.grid(ranks=[16], evaluation={"validation_bytes": 300_000})
    findings = analysed(results)
    (corpus,) = findings.corpora
    assert (corpus.label, corpus.num_documents) == ("news", 50)
    assert len(corpus.candidates) == 1
    assert not corpus.best.comparisons
    assert any(caveat.startswith("1 earlier run scored other validation text") for caveat in corpus.caveats)
    assert findings.ranks == ()
    assert findings.overall is None


def test_context_lengths_are_compared_with_a_caveat(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth())
    for length in (128, 512):
        results.grid(ranks=[8], training={"context_length": length}, seeds=[0, 1])
    findings = analysed(results)
    (axis,) = findings.other_axes
    assert axis.axis == "context_length"
    assert any("scored with its own context length" in caveat for caveat in axis.caveats)
    assert any("different lengths" in caveat for caveat in findings.corpora[0].caveats)


def test_what_is_worse_than_its_base_is_not_recommended(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(gain=-0.1), num_documents=60)
    results.grid(seeds=[0, 1])
    (choice,) = analysed(results).recommendations
    assert choice.candidates == ()
    assert "worse than its base" in choice.claim
    assert not choice.is_decided


def test_failures_are_listed_and_counted_as_tried(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(), num_documents=40)
    results.grid(ranks=[8, 16], learning_rates=[1e-3])
    results.grid(ranks=[8], learning_rates=[1e-2])
    results.grid(ranks=[16], learning_rates=[1e-2], status=Status.DIVERGED, status_reason="not finite at step 3")
    findings = analysed(results)
    (failed,) = findings.unfinished
    assert (failed.status, failed.reason) == (Status.DIVERGED, "not finite at step 3")
    (rank,) = findings.ranks
    assert [level.num_candidates for level in rank.levels] == [2, 1]
    assert any("different numbers" in caveat for caveat in rank.caveats)
    assert any("1 at 16" in caveat for caveat in rank.caveats)


@pytest.mark.parametrize("damage", ["missing", "cut", "other", "empty"])
def test_damaged_document_results_cost_the_interval_and_nothing_else(tmp_path: Path, damage: str) -> None:
    results = SyntheticResults(tmp_path, Truth())
    records = results.grid(ranks=[8, 16])
    path = results.store.run_dir(records[0].run_id) / "documents" / "validation.parquet"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes((path.parent / "test.parquet").read_bytes())
    findings = analysed(results)
    (corpus,) = findings.corpora
    hurt = next(item for item in corpus.candidates if records[0].run_id in item.run_ids)
    assert hurt.bits_per_byte.low is None
    assert hurt.bits_per_byte.estimate == pytest.approx(records[0].validation.bits_per_byte)  # type: ignore[union-attr]
    assert len(findings.problems) == 1
    assert records[0].run_id in findings.problems[0]
    assert {item.verdict for item in corpus.best.comparisons} == {Verdict.NOT_COMPARED}
    assert not corpus.best.is_decided
    assert "No best on news" in corpus.best.claim


def test_a_configuration_run_twice_with_one_seed_counts_once(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth())
    results.grid(ranks=[8])
    results.grid(ranks=[8], evaluation={"times": 9}, started_at="2026-11-25T12:00:00+00:00")
    findings = analysed(results)
    assert findings.corpora[0].candidates[0].seeds == (0,)
    assert any("same configuration and seed" in problem for problem in findings.problems)


def test_nothing_and_one_run_are_answered_with_sentences(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    empty = analyse([], store)
    assert empty.unanswered == ("There are no results yet, so nothing can be told",)
    assert empty.recommendations == ()
    results = SyntheticResults(tmp_path)
    results.grid(ranks=[8])
    one = analysed(results)
    assert "Only one configuration has a result" in one.corpora[0].best.claim
    assert not one.corpora[0].best.is_decided
    assert one.ranks == ()


def test_different_seeds_are_not_compared(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_rank={8: 0.5}))
    results.grid(ranks=[8], seeds=[0, 1])
    results.grid(ranks=[16], seeds=[2, 3])
    findings = analysed(results)
    assert "run with different seeds" in findings.corpora[0].best.claim
    assert not findings.ranks[0].is_answered
    assert not findings.corpora[0].best.is_decided


def test_that_full_fine_tuning_has_no_rank_is_no_rank(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth())
    results.grid(ranks=[8, 16])
    results.grid(ranks=[16], adapter={"method": "full"})
    findings = analysed(results)
    assert [level.shown for level in findings.ranks[0].levels] == ["8", "16"]
    assert {axis.axis for axis in findings.other_axes} == {"method"}


def test_methods_are_compared_at_their_own_best_rates(tmp_path: Path) -> None:
    """At the one rate that both were tried with, the other method is lower."""
    by_rate = {1e-4: 0.3, 1e-3: 0.2, 3e-3: 0.0}
    results = SyntheticResults(tmp_path, Truth(by_learning_rate=by_rate, noise=0.002), num_documents=60)
    results.grid(ranks=[8, 16], learning_rates=[1e-3, 3e-3], seeds=[0, 1])
    results.grid(ranks=[16], learning_rates=[1e-4, 1e-3], seeds=[0, 1], adapter={"method": "full"})
    (method,) = [axis for axis in analysed(results).other_axes if axis.axis == "method"]
    assert {level.shown: level.num_candidates for level in method.levels} == {"lora": 4, "full": 2}
    assert method.claim.startswith("Best method for tiny on news: lora")
    assert any("different numbers of configurations" in caveat for caveat in method.caveats)
    assert not any("Only one learning rate" in caveat for caveat in method.caveats)


def test_contamination_synthetic_text_and_a_second_look_at_test_are_said(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth())
    (record, _) = results.grid(models=["a"], ranks=[8, 16], seeds=[0])
    assert record.dataset is not None
    facts = record.dataset.model_copy(update={"contaminates": ("a",), "synthetic": True, "pinned": False})
    for item in results.store.read_all()[0]:
        results.store.write(item.model_copy(update={"dataset": facts, "num_test_scorings": 2}))
    findings = analysed(results)
    caveats = " ".join(findings.recommendations[0].caveats)
    assert "a was trained on text of news before" in caveats
    assert "synthetic" in caveats
    assert "not pinned" in caveats
    assert findings.test[0].num_test_scorings == 2


def test_drift_says_what_an_adapter_costs_elsewhere(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(noise=0.002), num_documents=80, also_on=("stories", "news"))
    results.grid(datasets=["news", "stories"], ranks=[8], seeds=[0, 1, 2])
    drift = analysed(results).drift
    assert {(cell.trained_on, cell.scored_on) for cell in drift} == {("news", "stories"), ("stories", "news")}
    assert {cell.verdict for cell in drift} == {Verdict.HIGHER}
    assert all(cell.change.low is not None and cell.change.low < 0.03 < (cell.change.high or 0) for cell in drift)


def test_fronts_hold_what_nothing_beats(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_rank={8: 0.2, 16: 0.0, 32: 0.1}, noise=0.0))
    results.grid(ranks=[8, 16, 32])
    points = {
        analysed(results).candidate(item.candidate).settings["rank"]: item for item in analysed(results).efficiency
    }
    assert [points[rank].on_size_front for rank in (8, 16, 32)] == [True, True, False]
    assert [points[rank].on_speed_front for rank in (8, 16, 32)] == [True, True, False]


def without_test(findings: Findings) -> Findings:
    """What was chosen, without what test said of it."""
    choices = [
        dataclasses.replace(choice, claim="", standing="", is_decided=False, on_test=(), is_withdrawn=False)
        for choice in (*findings.recommendations, *([findings.overall] if findings.overall else []))
    ]
    plain = dataclasses.replace(findings, overall=None, recommendations=tuple(choices))
    return dataclasses.replace(plain, test=(), problems=())


def test_changing_test_changes_no_choice(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_rank={8: 0.02}), also_on=("stories",))
    results.grid(models=["a", "b"], datasets=["news", "medical"], ranks=[8, 16], learning_rates=RATES, seeds=[0, 1])
    before = analysed(results)
    random = np.random.default_rng(0)
    for record in results.store.read_all()[0]:
        assert record.test is not None
        factor = float(random.uniform(0.1, 10.0))
        changed = record.test.model_copy(
            update={"negative_log_likelihood": record.test.negative_log_likelihood * factor}
        )
        results.store.write(record.model_copy(update={"test": changed, "base_test": changed}))
        (results.store.run_dir(record.run_id) / "documents" / "test.parquet").unlink()
    after = analysed(results)
    assert without_test(after) == without_test(before)
    assert after.test != before.test


def test_what_choosers_are_handed_has_no_test() -> None:
    fields = {field.name for field in dataclasses.fields(ValidationRun)}
    assert not {name for name in fields if "test" in name}
    left_out = set(RunRecord.model_fields) - fields
    assert {"test", "base_test", "num_test_scorings"} <= left_out
    assert not {name for field in dataclasses.fields(DocumentResults) if "test" in (name := field.name)}


def test_the_interval_is_of_the_records_own_figure(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    records = results.grid(ranks=[8], seeds=[0, 1, 2])
    (candidate,) = analysed(results).corpora[0].candidates
    figures = [record.validation.bits_per_byte for record in records if record.validation]
    assert candidate.bits_per_byte.estimate == pytest.approx(sum(figures) / 3, rel=1e-12)
    assert candidate.bits_per_byte.num_seeds == 3
    reader = DocumentReader(results.store)
    runs = read_validation_runs(records, reader)
    assert reader.problems == []
    assert all(run.documents is not None for run in runs)


def null_runs(random: np.random.Generator, num_documents: int, num_seeds: int) -> list[ValidationRun]:
    """Two models, two ranks, two rates, all equal in truth; documents, configurations and seeds differ by chance."""
    num_bytes = np.maximum(20.0, random.lognormal(7.0, 1.2, num_documents).round())
    documents = 1.0 + random.normal(0.0, 0.25, num_documents)
    base = documents + 0.1
    runs = []
    for model, rank, rate in itertools.product("ab", (8, 16), (1e-4, 1e-3)):
        own = random.normal(0.0, 0.02, num_documents)
        for seed in range(num_seeds):
            nll = (documents + own + random.normal(0.0, 0.003)) * num_bytes * LN2
            scores = Scores(
                negative_log_likelihood=float(nll.sum()),
                num_tokens=int(num_bytes.sum() / 4),
                num_bytes=int(num_bytes.sum()),
                num_words=100,
                num_documents=num_documents,
            )
            spec = RunSpec(
                model=model,
                model_revision="1",
                dataset="news",
                dataset_revision="2",
                adapter=AdapterSettings(rank=rank),
                training=TrainingSettings(learning_rate=rate, precision="fp32"),
                evaluation=EvaluationSettings(),
                seed=seed,
            )
            record = RunRecord(
                run_id=f"{model}{rank}{rate}{seed}",
                status=Status.COMPLETED,
                experiment="null",
                spec=spec,
                base_validation=scores,
                validation=scores,
                environment=ENVIRONMENT,
                started_at="2026-11-24T12:00:00+00:00",
            )
            results = DocumentResults("same", num_bytes, num_bytes / 4, num_bytes / 6, nll, base * num_bytes * LN2)
            runs.append(validation_run(record, results))
    return runs


@pytest.mark.parametrize(("num_documents", "num_seeds"), [slow(25, 1), slow(25, 3), slow(100, 2)])
def test_of_equals_at_most_one_report_in_twenty_answers_a_question(num_documents: int, num_seeds: int) -> None:
    random, repetitions = np.random.default_rng(num_documents), 200
    calls = dict.fromkeys(("best", "model", "rank", "rate"), 0)
    for _ in range(repetitions):
        findings = choose(null_runs(random, num_documents, num_seeds), lambda run_id, dataset: None)
        alone = findings.corpora[0].best
        called = {
            "best": alone.comparisons if alone.is_alone else (),
            "model": findings.hierarchy.comparisons,
            "rank": tuple(item for axis in findings.ranks for item in axis.comparisons),
            "rate": tuple(item for axis in findings.learning_rates for item in axis.comparisons),
        }
        for name, comparisons in called.items():
            calls[name] += any(item.verdict is not Verdict.NO_DETECTABLE_DIFFERENCE for item in comparisons)
    bound = 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / repetitions)
    assert all(count / repetitions <= bound for count in calls.values()), calls
