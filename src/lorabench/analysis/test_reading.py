"""Reads test, for what validation has already chosen; nothing here can change a choice.

What test says stands beside each recommendation, and where the choice is worse than its base there, it is no longer
for taking.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lorabench.analysis.findings import Candidate, Findings, Recommendation, TestReading
from lorabench.analysis.pairing import MISSING_DOCUMENTS, seed_note
from lorabench.analysis.statistics import Interval, Uncertain, compare_pair, estimate_figure, mean_of
from lorabench.analysis.validation import DocumentReader
from lorabench.core.formatting import alike, figure_and_span, listed, span
from lorabench.records.documents import DocumentResults
from lorabench.records.schema import RunRecord

NOT_READ = "only its place among the tied was read"


@dataclass(frozen=True)
class _OnTest:
    """A candidate on test, with the arrays behind it."""

    candidate: Candidate
    reading: TestReading
    tables: Mapping[int, DocumentResults] | None
    """By seed; empty where the results of any of them are missing, None where they were not read."""
    figure: Uncertain | None
    gain: Uncertain | None

    @property
    def estimate(self) -> float:
        """Bits per byte."""
        assert self.reading.bits_per_byte is not None
        return self.reading.bits_per_byte.estimate


def read_test(findings: Findings, records: Sequence[RunRecord], reader: DocumentReader) -> Findings:
    """The findings with what test said of everything that validation chose or could not tell from its choice."""
    rows = {id(choice): _rows(findings, choice) for choice in _choices(findings)}
    tied = [key for corpus in findings.corpora for key in corpus.best.tied]
    tied += [key for others in rows.values() for row in others[1:] for key in row]
    chosen = [corpus.best.lowest for corpus in findings.corpora if corpus.best.lowest is not None]
    chosen += [key for row in rows.values() for key in row[0]]
    for axis in findings.hierarchy.per_corpus:
        chosen += [level.candidate for level in axis.levels if level.candidate is not None]
    by_id = {record.run_id: record for record in records}
    on_test = {key: _read(findings.candidate(key), by_id, None) for key in dict.fromkeys(tied)}

    def read_whole(keys: Iterable[str]) -> None:
        """With its documents; for what is only tied the totals do, which tell its place."""
        on_test.update({key: _read(findings.candidate(key), by_id, reader) for key in dict.fromkeys(keys)})

    def beside(choice: Recommendation) -> Recommendation:
        first, *others = rows[id(choice)]
        lower = _lower(first, others, on_test)
        if lower:
            read_whole(key for key in lower[0] if (found := on_test[key]) is not None and found.tables is None)
        return _beside(choice, [on_test[key] for key in first], [[on_test[key] for key in row] for row in lower])

    read_whole(chosen)
    overall = beside(findings.overall) if findings.overall and findings.overall.candidates else findings.overall
    each = tuple(beside(choice) if choice.candidates else choice for choice in findings.recommendations)
    readings = tuple(found.reading for found in on_test.values() if found is not None)
    return replace(findings, test=readings, overall=overall, recommendations=each)


def _lower(
    first: Sequence[str], others: Sequence[Sequence[str]], on_test: Mapping[str, _OnTest | None]
) -> list[Sequence[str]]:
    """Rows of what is tied with the choice and lower on test, mean over corpora, the lowest first."""

    def figure(keys: Sequence[str]) -> float:
        found = [on_test[key] for key in keys]
        return statistics.fmean(math.nan if item is None else item.estimate for item in found)

    own = figure(first)
    return sorted((row for row in others if figure(row) < own), key=figure)


def _choices(findings: Findings) -> list[Recommendation]:
    return [item for item in (findings.overall, *findings.recommendations) if item is not None and item.candidates]


def _rows(findings: Findings, choice: Recommendation) -> list[tuple[str, ...]]:
    """Keys of the choice and of each alternative; overall those of the same configuration on every corpus."""
    if choice.corpus is not None:
        return [choice.candidates, *((key,) for key in choice.alternatives)]
    corpora = [findings.candidate(key).corpus for key in choice.candidates]
    alike = {(item.corpus, item.configuration): item.key for corpus in findings.corpora for item in corpus.candidates}
    settings = [findings.candidate(key).configuration for key in choice.alternatives]
    return [choice.candidates, *(tuple(alike[corpus, values] for corpus in corpora) for values in settings)]


def _beside(
    choice: Recommendation, chosen: Sequence[_OnTest | None], lower: Sequence[Sequence[_OnTest | None]]
) -> Recommendation:
    """The recommendation with what test said of it; `lower` are those tied with it that are lower there."""
    found = [item for item in chosen if item is not None]
    if len(found) < len(chosen):
        return replace(choice, on_test=("Test has not been scored",))
    figure = _mean(found, [item.reading.bits_per_byte for item in found], [item.figure for item in found])
    gain = _mean(found, [item.reading.gain for item in found], [item.gain for item in found])
    where = "" if choice.corpus is not None else f", mean over {len(found)} corpora"
    sentences = [] if gain is None else _on_gain(choice, gain, found)
    sentences.append(f"Bits per byte on test{where}: {figure_and_span(figure)}")
    sentences += _reversal(len(choice.alternatives), found, lower)
    looks = max(item.reading.num_test_scorings for item in found)
    if looks > 1:
        sentences.append(f"Test was scored {looks} times, so it is less of a test")
    choice = replace(choice, on_test=tuple(sentences))
    return choice if gain is None or gain.estimate >= 0 else _withdrawn(choice, found[0].candidate.label, gain)


def _withdrawn(choice: Recommendation, label: str, gain: Interval) -> Recommendation:
    """Chosen on validation as before, but not for taking."""
    for_what = f"for {choice.corpus}" if choice.corpus is not None else "over all corpora"
    shown = figure_and_span(gain.negated)
    return replace(
        choice,
        claim=f"Nothing to take {for_what}: validation chose {label}, but on test it is worse than its base. "
        f"It lies above it by {shown} bits per byte there",
        is_decided=False,
        standing="worse than its base on test",
        is_withdrawn=True,
    )


def _on_gain(choice: Recommendation, gain: Interval, found: Sequence[_OnTest]) -> list[str]:
    """The gain on test beside that on validation, and where test shows none."""
    shown = figure_and_span(gain) if gain.low is not None else f"{alike(gain.estimate, choice.gain)} ({span(gain)})"
    sentence = f"On test it gains {shown}"
    if choice.gain is not None:
        more = gain.estimate - choice.gain.estimate
        size = alike(abs(more), gain if gain.low is not None else choice.gain)
        is_same = not size.strip("0.")
        sentence += f", {'as' if is_same else size + (' more than' if more > 0 else ' less than')} on validation"
    sentences = [sentence]
    if gain.estimate > 0 and gain.low is not None and not gain.excludes_zero:
        sentences.append("By test alone it may gain nothing")
    worse = [item.candidate.corpus for item in found if item.reading.gain and item.reading.gain.estimate < 0]
    if choice.corpus is None and worse:
        sentences.append(f"On test it is worse than its base on {listed(worse)}")
    return sentences


def _reversal(num_tied: int, chosen: Sequence[_OnTest], lower: Sequence[Sequence[_OnTest | None]]) -> list[str]:
    """That test orders the choice and what is tied with it otherwise, and by how much."""
    lowest = [item for item in lower[0] if item is not None] if lower else []
    if not lowest:
        return []
    return [
        f"Test reverses the order: {len(lower)} of the {num_tied} tied with it are lower there",
        f"The lowest of them on test, {lowest[0].candidate.label}, is below it by "
        f"{figure_and_span(_difference(chosen, lowest))}",
    ]


def _difference(first: Sequence[_OnTest], second: Sequence[_OnTest]) -> Interval:
    """First minus second, mean over corpora, paired by document and seed where both have the same ones."""
    parts, num_documents, seeds = [], 0, set[int]()
    for one, two in zip(first, second, strict=True):
        common = sorted(set(one.tables or ()) & set(two.tables or ()))
        pair = [item.tables or {} for item in (one, two)]
        tables = [found[seed] for found in pair for seed in common]
        if not common or len({table.fingerprint for table in tables}) > 1:
            estimate = statistics.fmean(a.estimate - b.estimate for a, b in zip(first, second, strict=True))
            return Interval(estimate, note=MISSING_DOCUMENTS)
        nll = [np.stack([found[seed].nll for seed in common]) for found in pair]
        parts.append(compare_pair(nll[0], nll[1], tables[0].num_bytes))
        num_documents += len(tables[0].num_bytes)
        seeds = set(common) if not seeds or len(common) < len(seeds) else seeds
    return mean_of(parts).interval(num_documents, len(seeds), seed_note(sorted(seeds)))


def _mean(
    found: Sequence[_OnTest], intervals: Sequence[Interval | None], parts: Sequence[Uncertain | None]
) -> Interval | None:
    """The unweighted mean over corpora; None where one has no figure."""
    known, uncertain = [item for item in intervals if item is not None], [part for part in parts if part is not None]
    if len(known) < len(found):
        return None
    if len(found) == 1:
        return known[0]
    if len(uncertain) < len(found):
        return Interval(statistics.fmean(item.estimate for item in known), note=MISSING_DOCUMENTS)
    fewest = min((tuple(item.tables or ()) for item in found), key=len)
    return mean_of(uncertain).interval(sum(item.num_documents for item in known), len(fewest), seed_note(fewest))


def _read(candidate: Candidate, records: Mapping[str, RunRecord], reader: DocumentReader | None) -> _OnTest | None:
    """From the records' totals, and with a reader from documents too, which intervals need."""
    scored = [
        (record, record.test)
        for run_id in candidate.run_ids
        if (record := records[run_id]).test is not None and record.num_test_scorings > 0
    ]
    if not scored:
        return None
    seeds = [record.spec.seed for record, _ in scored]
    scores = [test for _, test in scored if test is not None]
    num_documents, note = scores[0].num_documents, seed_note(seeds)
    missing = NOT_READ if reader is None else MISSING_DOCUMENTS
    estimate = statistics.fmean(test.bits_per_byte for test in scores)
    figure = Interval(estimate, None, None, num_documents, len(seeds), missing)
    gain, uncertain, difference = None, None, None
    bases = [record.base_test.bits_per_byte for record, _ in scored if record.base_test is not None]
    if len(bases) == len(scored):
        gain = Interval(statistics.fmean(bases) - estimate, None, None, num_documents, len(seeds), missing)
    tables = None if reader is None else _tables([record for record, _ in scored], reader)
    if tables:
        nll, num_bytes = np.stack([table.nll for table in tables.values()]), tables[seeds[0]].num_bytes
        uncertain = estimate_figure(nll, num_bytes)
        figure = uncertain.interval(num_documents, len(seeds), note)
        base_nll = [table.base_nll for table in tables.values() if table.base_nll is not None]
        if len(base_nll) == len(tables):
            difference = compare_pair(np.stack(base_nll), nll, num_bytes)
            gain = difference.interval(num_documents, len(seeds), note)
    before = candidate.gain
    reading = TestReading(
        candidate=candidate.key,
        bits_per_byte=figure,
        gain=gain,
        gap=figure.estimate - candidate.bits_per_byte.estimate,
        gain_gap=None if gain is None or before is None else gain.estimate - before.estimate,
        num_test_scorings=max(record.num_test_scorings for record, _ in scored),
    )
    return _OnTest(candidate, reading, tables, uncertain, difference)


def _tables(records: Sequence[RunRecord], reader: DocumentReader) -> dict[int, DocumentResults]:
    """By seed; empty unless all are there and of the same documents."""
    found = {
        record.spec.seed: table
        for record in records
        if record.test is not None and (table := reader.read(record, "test", record.test)) is not None
    }
    return found if len(found) == len(records) and len({table.fingerprint for table in found.values()}) == 1 else {}
