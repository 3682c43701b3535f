"""From records to findings: everything is chosen on validation first, and only then test is read beside the choices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from lorabench.analysis.answers import read_answers
from lorabench.analysis.axes import judge_axes, pair_values
from lorabench.analysis.best import best_sets
from lorabench.analysis.candidates import CorpusGroup, describe_all, gather, settings_of_runs, varied_axes
from lorabench.analysis.deciding import what_could_be_detected
from lorabench.analysis.drift import drift_matrix
from lorabench.analysis.efficiency import efficiency_points
from lorabench.analysis.elsewhere import by_candidate, with_cost_elsewhere
from lorabench.analysis.facts import UnfinishedRun
from lorabench.analysis.findings import AxisFindings, BestSet, CorpusFindings, Findings, Verdict
from lorabench.analysis.hierarchy import contamination, model_hierarchy
from lorabench.analysis.length_quarters import length_buckets
from lorabench.analysis.overview import overview_of
from lorabench.analysis.quantized_bases import quantized_bases
from lorabench.analysis.recommendations import next_steps, recommend, recommend_overall, unanswered
from lorabench.analysis.searches import searches_of
from lorabench.analysis.test_reading import read_test
from lorabench.analysis.tried import ended_without_result
from lorabench.analysis.validation import DocumentReader, DriftReader, ValidationRun, drift_reader, read_validation_runs
from lorabench.core.formatting import number, plural
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore

MAX_NAMED = 3
"""Configurations in a caveat of a corpus, each by a sentence."""
FEW_DOCUMENTS = 10
"""With fewer effective documents a corpus's intervals are warned of."""
_SEPARATE_AXES = {"model", "rank", "learning_rate", "micro_batch_size"}


def analyse(records: Sequence[RunRecord], store: RecordStore) -> Findings:
    """All that the records support. What cannot be used of them is listed among the problems, and never raises."""
    reader = DocumentReader(store)
    findings = choose(read_validation_runs(records, reader), drift_reader(records, reader))
    findings = read_answers(read_test(findings, records, reader), records, store)
    return replace(findings, problems=(*reader.problems, *findings.problems))


def choose(runs: Sequence[ValidationRun], read_drift: DriftReader) -> Findings:
    """All that is chosen, ranked and recommended; `test` stays empty."""
    groups, problems = gather(runs)
    best = best_sets(groups)
    hierarchy = model_hierarchy(groups)
    tried = varied_axes(settings_of_runs(runs))
    ranks, rates = _axis("rank", groups, best), _axis("learning_rate", groups, best)
    others = tuple(found for axis in tried if axis not in _SEPARATE_AXES for found in _axis(axis, groups, best))
    axes = (*ranks, *rates, *others)
    unfinished = _unfinished(runs, groups)
    drift = drift_matrix(groups, read_drift)
    elsewhere = by_candidate(drift)
    overall = recommend_overall(groups, best)
    recommendations = [recommend(group, entry) for group, entry in zip(groups, best, strict=True)]
    return Findings(
        overview=overview_of(runs, tuple(group.label for group in groups), tried),
        corpora=tuple(_corpus(group, entry) for group, entry in zip(groups, best, strict=True)),
        hierarchy=hierarchy,
        ranks=ranks,
        learning_rates=rates,
        other_axes=others,
        overall=overall and with_cost_elsewhere(overall, groups, elsewhere),
        recommendations=tuple(with_cost_elsewhere(choice, groups, elsewhere) for choice in recommendations),
        drift=drift,
        efficiency=efficiency_points(groups),
        length_buckets=length_buckets(groups),
        unfinished=unfinished,
        quantized_bases=quantized_bases(groups),
        searches=searches_of(runs),
        unanswered=unanswered(groups, hierarchy, axes),
        next_steps=next_steps(groups, best, hierarchy, unfinished),
        problems=tuple(problems),
    )


def _axis(axis: str, groups: Sequence[CorpusGroup], best: Sequence[BestSet]) -> tuple[AxisFindings, ...]:
    """One axis for every model and corpus: one family of comparisons."""
    paired = [
        pairs
        for group in groups
        for model in dict.fromkeys(item.shown.model for item in group.candidates)
        if (pairs := pair_values(axis, group, model)) is not None
    ]
    found = judge_axes(paired)
    alone = {entry.lowest for entry in best if entry.is_alone}
    num_comparisons = sum(item.verdict is not Verdict.NOT_COMPARED for entry in found for item in entry.comparisons)
    return tuple(_beside_the_best(entry, alone, num_comparisons) for entry in found)


def _beside_the_best(axis: AxisFindings, alone: Collection[str | None], num_comparisons: int) -> AxisFindings:
    """Says why the best configuration may be told apart where the values of an axis are not: two questions."""
    tied = [level.candidate for level in axis.levels if level.is_tied_best and level.candidate is not None]
    if not axis.is_answered or len(tied) < 2 or not set(tied) & set(alone):
        return axis
    why = f"The best of {axis.corpus} is told apart, but this question corrects for {num_comparisons} comparisons"
    return replace(axis, caveats=(*axis.caveats, why))


def _corpus(group: CorpusGroup, best: BestSet) -> CorpusFindings:
    run = group.runs[0]
    facts, scores = run.dataset, run.validation
    assert scores is not None
    return CorpusFindings(
        label=group.label,
        name=run.spec.dataset,
        revision=run.spec.dataset_revision,
        num_documents=scores.num_documents,
        num_bytes=scores.num_bytes,
        effective_documents=_effective_documents(group),
        domain=facts.domain if facts else None,
        licence=facts.licence if facts else None,
        synthetic=bool(facts and facts.synthetic),
        pinned=facts is None or facts.pinned,
        removed=facts.removed if facts else {},
        split_documents=facts.num_documents if facts else {},
        candidates=tuple(item.shown for item in group.candidates),
        best=best,
        caveats=_caveats(group),
        detectable=what_could_be_detected(group, best),
    )


def _effective_documents(group: CorpusGroup) -> float | None:
    """Of the validation text that all of the group's runs were scored on."""
    return next((run.documents.effective for run in group.runs if run.documents is not None), None)


def _caveats(group: CorpusGroup) -> tuple[str, ...]:
    """What a reader of this corpus's figures should know."""
    found = contamination([group])
    partial = [item.shown for item in group.candidates if item.shown.without_result]
    found += [f"{item.label} {ended_without_result(item)}" for item in partial[:MAX_NAMED]]
    if len(partial) > MAX_NAMED:
        found.append(f"{len(partial) - MAX_NAMED} more configurations lack a result on some seeds")
    if short := sum(item.shown.still_falls is not None for item in group.candidates):
        found.append(f"Validation still fell at the end of {short} of {len(group.candidates)}: training was too short")
    if group.on_other_text:
        found.append(
            f"{plural(len(group.on_other_text), 'earlier run')} scored other validation text of it, or with another "
            "stride: compared with none of these"
        )
    contexts = {item.shown.settings["context_length"] for item in group.candidates}
    precisions = {item.shown.settings["precision"] for item in group.candidates}
    effective = _effective_documents(group)
    if effective is not None and effective < FEW_DOCUMENTS:
        found.append(
            f"Its validation text weighs no more than {number(effective, 2)} documents of one length, so its intervals "
            "are rough and may be too narrow"
        )
    if len(contexts) > 1:
        found.append("Scored with windows of different lengths, each run with its own context length")
    if len(precisions) > 1:
        found.append("Scored in different precisions, each run in its own")
    if any(run.documents is None for run in group.runs):
        found.append("Some runs have no per-document results and so no interval")
    if any(run.dataset is not None and run.dataset.synthetic for run in group.runs):
        found.append("Synthetic text")
    texts = {run.budget.training_text_sha256 for run in group.runs if run.budget is not None}
    sizes = {run.spec.training.train_bytes for run in group.runs}
    if len(sizes) > 1:
        found.append("The configurations were trained on different amounts of text")
    elif len(texts) > 1:
        found.append("The configurations were not trained on the same documents")
    return tuple(found)


def _unfinished(runs: Sequence[ValidationRun], groups: Sequence[CorpusGroup]) -> tuple[UnfinishedRun, ...]:
    labels = describe_all(settings_of_runs(runs))
    label_of = {run.run_id: group.label for group in groups for run in group.unfinished}
    return tuple(
        UnfinishedRun(
            run_id=run.run_id,
            status=run.status,
            reason=run.status_reason or "",
            experiment=run.experiment,
            model=run.spec.model,
            corpus=label_of.get(run.run_id, run.spec.dataset),
            label=label,
            is_interrupted=run.goes_on,
        )
        for run, label in zip(runs, labels, strict=True)
        if run.has_failed
    )
