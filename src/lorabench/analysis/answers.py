"""Reads what candidates and their bases answered, once everything is chosen; nothing here can change a choice.

A mean over questions is a ratio of sums whose documents all have one weight, so intervals are those of bits per byte.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lorabench.analysis.facts import AnswersFinding
from lorabench.analysis.findings import Candidate, Findings
from lorabench.analysis.pairing import MISSING_DOCUMENTS, seed_note
from lorabench.analysis.statistics import Floats, Interval, compare_pair
from lorabench.core.errors import DiskError
from lorabench.records.answers import AnswerResults
from lorabench.records.measured import Answers
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore

ALL_ALIKE = "the same for every question"
Answered = list[tuple[RunRecord, Answers]]


def read_answers(findings: Findings, records: Sequence[RunRecord], store: RecordStore) -> Findings:
    """The findings with what answers are worth: on validation of all candidates, on test of those read there."""
    by_id = {record.run_id: record for record in records}
    on_test = {reading.candidate for reading in findings.test}
    found: list[AnswersFinding] = []
    problems: list[str] = []
    for corpus in findings.corpora:
        for candidate in corpus.candidates:
            for split in ("validation", "test") if candidate.key in on_test else ("validation",):
                answered = _answered(candidate, by_id, split)
                if answered:
                    results = _results(answered, store, problems)
                    found += [_finding(candidate, split, name, answered, results) for name in answered[0][1].metrics]
    return replace(findings, answers=tuple(found), problems=(*findings.problems, *dict.fromkeys(problems)))


def _answered(candidate: Candidate, records: dict[str, RunRecord], split: str) -> Answered:
    """Those of the candidate's runs that answered what the latest of them did."""
    pairs = [(record, found) for key in candidate.run_ids if (found := (record := records[key]).answers_of(split))]
    if not pairs:
        return []
    latest = max(pairs, key=lambda pair: pair[1].measurement.measured_at)[1].revision
    return [pair for pair in pairs if pair[1].revision == latest]


def _results(answered: Answered, store: RecordStore, problems: list[str]) -> list[AnswerResults]:
    """Of every run; none where one is missing, damaged, or of other questions."""
    results = []
    for record, answers in answered:
        try:
            results.append(store.answers(record, answers))
        except DiskError as error:
            problems.append(f"{error}; until then its answers have no interval")
    is_whole = len(results) == len(answered) and len({result.fingerprint for result in results}) == 1
    return results if is_whole else []


def _finding(
    candidate: Candidate, split: str, metric: str, answered: Answered, results: Sequence[AnswerResults]
) -> AnswersFinding:
    figures = [answers.metrics[metric] for _, answers in answered]
    base, adapted = (statistics.fmean(getattr(figure, whose) for figure in figures) for whose in ("base", "adapted"))
    seeds = [record.spec.seed for record, _ in answered]
    intervals = [
        Interval(estimate, None, None, answered[0][1].num_examples, len(seeds), MISSING_DOCUMENTS)
        for estimate in (base, adapted, adapted - base)
    ]
    if results:
        scores = np.stack([result.scores[metric] for result in results])
        base_scores = np.stack([result.base_scores[metric] for result in results])
        nothing = np.zeros_like(scores)
        pairs = ((base_scores, nothing), (scores, nothing), (scores, base_scores))
        intervals = [score_interval(first, second, seeds) for first, second in pairs]
    return AnswersFinding(
        candidate=candidate.key,
        split=split,
        metric=metric,
        base=intervals[0],
        adapted=intervals[1],
        gain=intervals[2],
        num_left_out=max(answers.num_left_out for _, answers in answered),
        num_cut=sum(answers.num_cut for _, answers in answered),
        base_num_cut=max(answers.base_num_cut for _, answers in answered),
        num_times=max(answers.num_times for _, answers in answered),
    )


def score_interval(first: Floats, second: Floats, seeds: Sequence[int]) -> Interval:
    """Mean of first minus second over questions and seeds, both [S, Q]; none where no question differs from another."""
    num_questions = first.shape[1]
    if np.ptp(first - second) == 0.0:
        return Interval(float((first - second).mean()), None, None, num_questions, len(seeds), ALL_ALIKE)
    bits = math.log(2.0)  # sums of nats over bytes become means of scores over questions
    uncertain = compare_pair(first * bits, second * bits, np.ones(num_questions))
    return uncertain.interval(num_questions, len(seeds), seed_note(seeds))
