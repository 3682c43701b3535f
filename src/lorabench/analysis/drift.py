"""What adapters cost on corpora that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lorabench.analysis.candidates import CorpusGroup, labels_of
from lorabench.analysis.comparisons import Correction, correct, verdict_of
from lorabench.analysis.findings import DriftCell, Verdict
from lorabench.analysis.pairing import MISSING_DOCUMENTS, Measured, seed_note
from lorabench.analysis.statistics import Interval, Uncertain, compare_pair
from lorabench.analysis.validation import DriftReader
from lorabench.records.schema import Drift


def drift_matrix(groups: Sequence[CorpusGroup], read: DriftReader) -> tuple[DriftCell, ...]:
    """Every configuration on the corpora it was also scored on, those of a corpus lowest first."""
    drafts: list[tuple[DriftCell, Uncertain | None]] = []
    best = {item.key for group in groups for item in group.best_of_each_model()}
    every = [item for group in groups for item in group.candidates]
    elsewhere = {item.key: dict.fromkeys(_text_of(d) for run in item.runs for d in run.drift) for item in every}
    labels = labels_of({corpus for corpora in elsewhere.values() for corpus in corpora})
    for item in every:
        for corpus in elsewhere[item.key]:
            cell, difference = _drift_cell(item, corpus, labels[corpus], read)
            drafts.append((replace(cell, is_best_of_model=item.key in best), difference))
    corrections = correct([difference for _, difference in drafts])
    return tuple(
        cell if difference is None or correction is None else _judged(cell, difference, correction)
        for (cell, difference), correction in zip(drafts, corrections, strict=True)
    )


def _judged(cell: DriftCell, difference: Uncertain, correction: Correction) -> DriftCell:
    found = cell.change
    interval = difference.interval(found.num_documents, found.num_seeds, found.note, correction.factor)
    return replace(cell, change=interval, verdict=verdict_of(float(difference.estimate), correction.adjusted_p))


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
