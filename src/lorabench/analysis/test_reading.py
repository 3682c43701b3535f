"""Reads test, for what validation has already chosen; nothing here can change a choice."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from lorabench.analysis.findings import Candidate, Findings, TestReading
from lorabench.analysis.pairing import MISSING_DOCUMENTS, seed_note
from lorabench.analysis.statistics import Interval, compare_pair, estimate_figure
from lorabench.analysis.validation import DocumentReader
from lorabench.records.schema import RunRecord, Scores


def read_test(findings: Findings, records: Sequence[RunRecord], reader: DocumentReader) -> tuple[TestReading, ...]:
    """What test said about each corpus's lowest and about everything recommended, with the gap to validation."""
    chosen = [corpus.best.lowest for corpus in findings.corpora if corpus.best.lowest is not None]
    for choice in (findings.overall, *findings.recommendations):
        chosen += [] if choice is None else choice.candidates
    for axis in findings.hierarchy.per_corpus:
        chosen += [level.candidate for level in axis.levels if level.candidate is not None]
    by_id = {record.run_id: record for record in records}
    readings = (_read(findings.candidate(key), by_id, reader) for key in dict.fromkeys(chosen))
    return tuple(reading for reading in readings if reading is not None)


def _read(candidate: Candidate, records: Mapping[str, RunRecord], reader: DocumentReader) -> TestReading | None:
    scored = [
        (record, record.test)
        for run_id in candidate.run_ids
        if (record := records[run_id]).test is not None and record.num_test_scorings > 0
    ]
    if not scored:
        return None
    scores = [test for _, test in scored if test is not None]
    bits, gain = _measure([record for record, _ in scored], scores, reader)
    return TestReading(
        candidate=candidate.key,
        bits_per_byte=bits,
        gain=gain,
        gap=bits.estimate - candidate.bits_per_byte.estimate,
        num_test_scorings=max(record.num_test_scorings for record, _ in scored),
    )


def _measure(
    records: Sequence[RunRecord], scores: Sequence[Scores], reader: DocumentReader
) -> tuple[Interval, Interval | None]:
    seeds = [record.spec.seed for record in records]
    tables = [
        table
        for record, test in zip(records, scores, strict=True)
        if (table := reader.read(record, "test", test)) is not None
    ]
    num_documents, note = scores[0].num_documents, seed_note(seeds)
    estimate = statistics.fmean(test.bits_per_byte for test in scores)
    bits = Interval(estimate, None, None, num_documents, len(seeds), MISSING_DOCUMENTS)
    gain = None
    bases = [record.base_test.bits_per_byte for record in records if record.base_test is not None]
    if len(bases) == len(records):
        difference = statistics.fmean(bases) - estimate
        gain = Interval(difference, None, None, num_documents, len(seeds), MISSING_DOCUMENTS)
    if len(tables) == len(records) and len({table.fingerprint for table in tables}) == 1:
        nll, num_bytes = np.stack([table.nll for table in tables]), tables[0].num_bytes
        bits = estimate_figure(nll, num_bytes).interval(num_documents, len(seeds), note)
        base_nll = [table.base_nll for table in tables if table.base_nll is not None]
        if len(base_nll) == len(tables):
            gain = compare_pair(np.stack(base_nll), nll, num_bytes).interval(num_documents, len(seeds), note)
    return bits, gain
