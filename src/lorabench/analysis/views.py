"""The best candidates beyond one figure: what they cost on other corpora, and on which documents they are good."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorabench.analysis.candidates import CorpusGroup, labels_of
from lorabench.analysis.comparisons import verdict_of
from lorabench.analysis.findings import DriftCell, LengthBucket, Verdict
from lorabench.analysis.pairing import MISSING_DOCUMENTS, Measured, seed_note
from lorabench.analysis.statistics import Interval, Uncertain, compare_pair, holm, stack
from lorabench.analysis.validation import DriftReader
from lorabench.record.schema import Drift, Scores

_NUM_BUCKETS = 4
_LN2 = float(np.log(2.0))


def best_of_each_model(group: CorpusGroup) -> list[Measured]:
    """The candidate with the lowest figure of every model."""
    return [group.of_model(model)[0] for model in sorted({item.shown.model for item in group.candidates})]


def drift_matrix(groups: Sequence[CorpusGroup], read: DriftReader) -> tuple[DriftCell, ...]:
    """Every model's best adapter of each corpus, on the corpora it was also scored on."""
    drafts: list[tuple[DriftCell, Uncertain | None]] = []
    chosen = [item for group in groups for item in best_of_each_model(group)]
    elsewhere = {item.key: dict.fromkeys(_text_of(d) for run in item.runs for d in run.drift) for item in chosen}
    labels = labels_of({corpus for corpora in elsewhere.values() for corpus in corpora})
    for item in chosen:
        drafts += [_drift_cell(item, corpus, labels[corpus], read) for corpus in elsewhere[item.key]]
    measured = [difference for _, difference in drafts if difference is not None]
    corrected = iter(holm(stack(measured).p_value()) if measured else ())
    return tuple(
        cell if difference is None else _with_verdict(cell, float(difference.estimate), float(next(corrected)))
        for cell, difference in drafts
    )


def _with_verdict(cell: DriftCell, difference: float, adjusted_p: float) -> DriftCell:
    return DriftCell(**(vars(cell) | {"verdict": verdict_of(difference, adjusted_p)}))


def _text_of(drift: Drift) -> tuple[str, str]:
    """Which text was scored: seeds that were scored on two revisions of a corpus are not averaged."""
    return drift.dataset, drift.revision


def _drift_cell(
    item: Measured, corpus: tuple[str, str], label: str, read: DriftReader
) -> tuple[DriftCell, Uncertain | None]:
    found = [(run, drift) for run in item.runs for drift in run.drift if _text_of(drift) == corpus]
    base = float(np.mean([drift.base.bits_per_byte for _, drift in found]))
    adapted = float(np.mean([drift.adapted.bits_per_byte for _, drift in found]))
    seeds = tuple(run.spec.seed for run, _ in found)
    tables = [table for run, _ in found if (table := read(run.run_id, corpus[0])) is not None]
    difference = None
    num_documents = found[0][1].adapted.num_documents
    change = Interval(adapted - base, None, None, num_documents, len(seeds), MISSING_DOCUMENTS)
    bases = [table.base_nll for table in tables if table.base_nll is not None]
    same = len({table.fingerprint for table in tables}) == 1
    if same and len(tables) == len(bases) == len(found) and num_documents > 1:
        difference = compare_pair(np.stack([table.nll for table in tables]), np.stack(bases), tables[0].num_bytes)
        change = difference.interval(num_documents, len(seeds), seed_note(seeds))
    cell = DriftCell(
        model=item.shown.model,
        trained_on=item.shown.corpus,
        scored_on=label,
        candidate=item.key,
        base_bits_per_byte=base,
        bits_per_byte=adapted,
        change=change,
        verdict=Verdict.NOT_COMPARED,
    )
    return cell, difference


def length_buckets(groups: Sequence[CorpusGroup]) -> tuple[LengthBucket, ...]:
    """Quarters of the documents by length, for every model's best candidate of a corpus."""
    found: list[LengthBucket] = []
    for group in groups:
        for item in best_of_each_model(group):
            if item.nll is not None and item.num_bytes is not None:
                found += _buckets(group.label, item)
    return tuple(found)


def _buckets(corpus: str, item: Measured) -> list[LengthBucket]:
    assert item.nll is not None
    assert item.num_bytes is not None
    tokens = item.runs[0].documents
    assert tokens is not None
    order = np.argsort(item.num_bytes, kind="stable")
    parts = [part for part in np.array_split(order, _NUM_BUCKETS) if len(part)]
    nll = item.nll.mean(axis=0)
    base = None if item.base_nll is None else item.base_nll.mean(axis=0)
    buckets = []
    for part in parts:
        num_bytes = float(item.num_bytes[part].sum())
        scores = Scores(
            negative_log_likelihood=float(nll[part].sum()),
            num_tokens=int(max(1, tokens.num_tokens[part].sum())),
            num_bytes=int(num_bytes),
            num_words=1,
            num_documents=len(part),
        )
        buckets.append(
            LengthBucket(
                corpus=corpus,
                model=item.shown.model,
                candidate=item.key,
                low_bytes=int(item.num_bytes[part].min()),
                high_bytes=int(item.num_bytes[part].max()),
                num_documents=len(part),
                bits_per_byte=scores.bits_per_byte,
                base_bits_per_byte=None if base is None else float(base[part].sum()) / (_LN2 * num_bytes),
                perplexity=scores.perplexity,
            )
        )
    return buckets
