"""Reads test, for what validation has already chosen; nothing here can change a choice.

What test says stands beside each recommendation, and where the choice is worse than its base there, it is no longer
for taking.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lorabench.analysis.findings import Candidate, Findings, Recommendation, TestReading
from lorabench.analysis.pairing import MISSING_DOCUMENTS, seed_note
from lorabench.analysis.statistics import Interval, Uncertain, compare_pair, estimate_figure, mean_of
from lorabench.analysis.validation import DocumentReader
from lorabench.core.formatting import alike, figure_and_span, listed, span
from lorabench.records.documents import DocumentResults
from lorabench.records.schema import RunRecord


@dataclass(frozen=True)
class _OnTest:
    """A candidate on test, with the arrays behind it."""

    candidate: Candidate
    reading: TestReading
    tables: Mapping[int, DocumentResults]
    """By seed; empty where the results of any of them are missing."""
    figure: Uncertain | None
    gain: Uncertain | None

    @property
    def estimate(self) -> float:
        """Bits per byte."""
        assert self.reading.bits_per_byte is not None
        return self.reading.bits_per_byte.estimate


def read_test(findings: Findings, records: Sequence[RunRecord], reader: DocumentReader) -> Findings:
    """The findings with what test said of everything that validation chose or could not tell from its choice."""
    chosen = [key for corpus in findings.corpora for key in corpus.best.tied]
    rows = {id(choice): _rows(findings, choice) for choice in _choices(findings)}
    chosen += [key for row in rows.values() for keys in row for key in keys]
    for axis in findings.hierarchy.per_corpus:
        chosen += [level.candidate for level in axis.levels if level.candidate is not None]
    by_id = {record.run_id: record for record in records}
    read = {key: _read(findings.candidate(key), by_id, reader) for key in dict.fromkeys(chosen)}
    on_test = {key: found for key, found in read.items() if found is not None}

    def beside(choice: Recommendation) -> Recommendation:
        first, *others = ([on_test.get(key) for key in row] for row in rows[id(choice)])
        return _beside(choice, first, others)

    return replace(
        findings,
        test=tuple(found.reading for found in on_test.values()),
        overall=beside(findings.overall) if findings.overall and findings.overall.candidates else findings.overall,
        recommendations=tuple(beside(choice) if choice.candidates else choice for choice in findings.recommendations),
    )


def _choices(findings: Findings) -> list[Recommendation]:
    return [item for item in (findings.overall, *findings.recommendations) if item is not None and item.candidates]


def _rows(findings: Findings, choice: Recommendation) -> list[tuple[str, ...]]:
    """Keys of the choice and of each alternative; overall those of the same configuration on every corpus."""
    if choice.corpus is not None:
        return [choice.candidates, *((key,) for key in choice.alternatives)]
    corpora = [findings.candidate(key).corpus for key in choice.candidates]
    alike = {
        (item.corpus, repr(sorted(item.settings.items()))): item.key
        for corpus in findings.corpora
        for item in corpus.candidates
    }
    settings = [repr(sorted(findings.candidate(key).settings.items())) for key in choice.alternatives]
    return [choice.candidates, *(tuple(alike[corpus, values] for corpus in corpora) for values in settings)]


def _beside(
    choice: Recommendation, chosen: Sequence[_OnTest | None], others: Sequence[Sequence[_OnTest | None]]
) -> Recommendation:
    """The recommendation with what test said of it."""
    found = [item for item in chosen if item is not None]
    if len(found) < len(chosen):
        return replace(choice, on_test=("Test has not been scored",))
    figure = _mean(found, [item.reading.bits_per_byte for item in found], [item.figure for item in found])
    gain = _mean(found, [item.reading.gain for item in found], [item.gain for item in found])
    where = "" if choice.corpus is not None else f", mean over {len(found)} corpora"
    sentences = [] if gain is None else _on_gain(choice, gain, found)
    sentences.append(f"Bits per byte on test{where}: {figure_and_span(figure)}")
    sentences += _reversal(found, others)
    looks = max(item.reading.num_test_scorings for item in found)
    if looks > 1:
        sentences.append(f"Test was scored {looks} times, so it is less of a test")
    choice = replace(choice, on_test=tuple(sentences))
    return choice if gain is None or gain.estimate >= 0 else _withdrawn(choice, found[0].candidate.label, gain)


def _withdrawn(choice: Recommendation, label: str, gain: Interval) -> Recommendation:
    """Chosen on validation as before, but not for taking."""
    for_what = f"for {choice.corpus}" if choice.corpus is not None else "over all corpora"
    shown = figure_and_span(_negative(gain))
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


def _reversal(chosen: Sequence[_OnTest], others: Sequence[Sequence[_OnTest | None]]) -> list[str]:
    """That test orders the choice and what is tied with it otherwise, and by how much."""
    lower = []
    for row in others:
        found = [item for item in row if item is not None]
        if len(found) == len(chosen) and (difference := _difference(chosen, found)).estimate > 0:
            lower.append((difference, found[0].candidate.label))
    if not lower:
        return []
    difference, label = max(lower, key=lambda pair: pair[0].estimate)
    return [
        f"Test reverses the order: {len(lower)} of the {len(others)} tied with it are lower there",
        f"The lowest of them on test, {label}, is below it by {figure_and_span(difference)}",
    ]


def _difference(first: Sequence[_OnTest], second: Sequence[_OnTest]) -> Interval:
    """First minus second, mean over corpora, paired by document and seed where both have the same ones."""
    parts, num_documents, seeds = [], 0, set[int]()
    for one, two in zip(first, second, strict=True):
        common = sorted(set(one.tables) & set(two.tables))
        tables = [item.tables[seed] for item in (one, two) for seed in common]
        if not common or len({table.fingerprint for table in tables}) > 1:
            estimate = statistics.fmean(a.estimate - b.estimate for a, b in zip(first, second, strict=True))
            return Interval(estimate, note=MISSING_DOCUMENTS)
        nll = [np.stack([item.tables[seed].nll for seed in common]) for item in (one, two)]
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
    fewest = min((tuple(item.tables) for item in found), key=len)
    return mean_of(uncertain).interval(sum(item.num_documents for item in known), len(fewest), seed_note(fewest))


def _negative(interval: Interval) -> Interval:
    low, high = (None, None) if interval.low is None or interval.high is None else (-interval.high, -interval.low)
    return replace(interval, estimate=-interval.estimate, low=low, high=high)


def _read(candidate: Candidate, records: Mapping[str, RunRecord], reader: DocumentReader) -> _OnTest | None:
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
    estimate = statistics.fmean(test.bits_per_byte for test in scores)
    figure = Interval(estimate, None, None, num_documents, len(seeds), MISSING_DOCUMENTS)
    gain, uncertain, difference = None, None, None
    bases = [record.base_test.bits_per_byte for record, _ in scored if record.base_test is not None]
    if len(bases) == len(scored):
        gain = Interval(statistics.fmean(bases) - estimate, None, None, num_documents, len(seeds), MISSING_DOCUMENTS)
    tables = _tables([record for record, _ in scored], reader)
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
