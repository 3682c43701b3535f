"""The last line of an experiment: every run in it once, whatever became of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabench.records.schema import RunRecord, Status
from lorabench.runs.outcome import Counts

from .conftest import MakeRecord

FATES = [None, *Status, "environment"]


def numbers(sentence: str) -> tuple[int, int, list[int], list[int]]:
    """Completed, all, the parts of the completed that are named, and the others."""
    first, *others = sentence.split("; ")
    completed, total = map(int, re.match(r"(\d+) of (\d+) runs completed", first).groups())  # type: ignore[union-attr]
    parts = [int(number) for number in re.findall(r", (\d+) of them", first)]
    return completed, total, parts, [int(other.split()[0]) for other in others]


@pytest.fixture
def of_status(make_record: MakeRecord) -> Callable[[object], RunRecord | None]:
    made: dict[object, RunRecord] = {}

    def make(fate: object) -> RunRecord | None:
        if fate is None:
            return None
        if fate not in made:
            status = Status.FAILED if fate == "environment" else Status(str(fate))
            record = make_record("run", 0.9, status=status)
            made[fate] = record.model_copy(update={"environment_failed": fate == "environment"})
        return made[fate]

    return make


def test_the_numbers_add_up(of_status: Callable[[object], RunRecord | None]) -> None:
    kinds = ["tried", "skipped", "neither"]

    @given(st.lists(st.tuples(st.sampled_from(FATES), st.sampled_from(kinds)), max_size=30))
    def check(runs: list[tuple[object, str]]) -> None:
        ids = [str(index) for index in range(len(runs))]
        records = {id_: record for id_, (fate, _) in zip(ids, runs, strict=True) if (record := of_status(fate))}
        by_kind = {kind: {id_ for id_, (_, k) in zip(ids, runs, strict=True) if k == kind} for kind in kinds}
        counts = Counts.of(ids, records, tried=by_kind["tried"], skipped=by_kind["skipped"])
        completed, total, parts, others = numbers(counts.sentence())
        assert total == len(runs)
        assert completed == sum(fate is Status.COMPLETED for fate, _ in runs)
        assert sum(parts) <= completed
        assert completed + sum(others) == total
        assert all(others), "what there is none of is not named"

    check()


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        (Counts(), "0 of 0 runs completed"),
        (Counts(completed_now=8), "8 of 8 runs completed"),
        (Counts(completed_now=1, completed_before=7), "8 of 8 runs completed, 7 of them before"),
        (Counts(failed_before=8), "0 of 8 runs completed; 8 failed before and not tried again"),
        (Counts(cancelled=1, not_reached=7), "0 of 8 runs completed; 1 cancelled; 7 not reached"),
        (Counts(completed_elsewhere=2, failed_now=1), "2 of 3 runs completed, 2 of them by another process; 1 failed"),
    ],
    ids=lambda value: "" if isinstance(value, Counts) else value,
)
def test_what_it_says(counts: Counts, sentence: str) -> None:
    assert counts.sentence() == sentence
