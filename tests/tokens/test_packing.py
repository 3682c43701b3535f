from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from lorabench.tokens.packing import IGNORED, Segment, document_segments, make_batch, packed_rows, stream_rows

PREFIX = 1


def documents(lengths: list[int]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(2, 1000, size=length).astype(np.int32) for length in lengths]


@pytest.mark.parametrize("stride", [None, 1, 3, 8])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 29])
def test_every_token_is_scored_once_given_what_came_before(length: int, stride: int | None) -> None:
    (tokens,) = documents([length])
    scored = []
    for segment in document_segments(0, tokens, prefix=PREFIX, context_length=8, stride=stride):
        assert segment.tokens[0] == PREFIX
        assert segment.num_inputs <= 8
        scored.extend(segment.tokens[1 + segment.num_unscored :])
    assert scored == tokens.tolist()


def test_stride_gives_as_much_context_as_fits() -> None:
    (tokens,) = documents([20])
    segments = list(document_segments(0, tokens, prefix=PREFIX, context_length=8, stride=2))
    assert [segment.num_scored for segment in segments] == [8, 2, 2, 2, 2, 2, 2]
    assert segments[1].tokens[1:].tolist() == tokens[2:10].tolist()


def test_training_rows_are_full_and_lose_nothing() -> None:
    texts = documents([5, 17, 1, 30, 3])
    order = [3, 0, 4, 2, 1]
    rows = list(stream_rows(texts, order, prefix=PREFIX, context_length=8))
    assert [sum(segment.num_inputs for segment in row) for row in rows] == [8] * 7
    seen = np.concatenate([segment.tokens[1:] for row in rows for segment in row])
    assert seen.tolist() == np.concatenate([texts[index] for index in order]).tolist()


def test_packing_keeps_every_segment_and_never_overfills() -> None:
    texts = documents(np.random.default_rng(1).integers(1, 40, size=300).tolist())
    segments = [
        segment
        for index, tokens in enumerate(texts)
        for segment in document_segments(index, tokens, prefix=PREFIX, context_length=32)
    ]
    rows = packed_rows(segments, 32)
    assert max(sum(segment.num_inputs for segment in row) for row in rows) <= 32
    assert sum(len(row) for row in rows) == len(segments)
    waste = 1 - sum(segment.num_inputs for segment in segments) / (32 * len(rows))
    assert waste < 0.05


def test_a_batch_marks_boundaries_positions_and_context() -> None:
    (tokens,) = documents([10])
    segments = list(document_segments(4, tokens, prefix=PREFIX, context_length=8, stride=2))
    batch = make_batch([[segments[0]], [segments[1]]])
    assert batch.segment_starts.tolist() == [0, 8, 16]
    assert batch.position_ids.tolist() == [*range(8), *range(8)]
    assert batch.document_index.tolist() == [4, 4]
    assert batch.num_scored == 10
    assert (batch.targets[8:14] == IGNORED).all()
    assert batch.targets[14:].tolist() == tokens[8:].tolist()
    assert batch.input_ids[[0, 8]].tolist() == [PREFIX, PREFIX]


def best_fit_one_by_one(segments: list[Segment], context_length: int) -> list[list[int]]:
    """The rule as it is told, by looking at every row for every segment."""
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # room, when the row came to have it
    for moment, index in enumerate(sorted(range(len(segments)), key=lambda index: -segments[index].num_inputs)):
        length = segments[index].num_inputs
        fitting = [row for row, (room, _) in enumerate(rooms) if room >= length]
        if fitting:
            chosen = min(fitting, key=lambda row: (rooms[row][0], -rooms[row][1]))
        else:
            rows.append([])
            rooms.append((context_length, moment))
            chosen = len(rows) - 1
        rows[chosen].append(segments[index].document)
        rooms[chosen] = (rooms[chosen][0] - length, moment)
    return rows


def segments_of(lengths: Sequence[int]) -> list[Segment]:
    return [Segment(index, np.zeros(length + 1, dtype=np.int32)) for index, length in enumerate(lengths)]


@pytest.mark.parametrize("context_length", [8, 40, 1000])
def test_packing_is_best_fit_decreasing(context_length: int) -> None:
    lengths = np.random.default_rng(2).integers(1, min(context_length, 100) + 1, size=400)
    segments = segments_of(lengths.tolist())
    rows = [[segment.document for segment in row] for row in packed_rows(segments, context_length)]
    assert rows == best_fit_one_by_one(segments, context_length)


def test_packing_into_long_windows_costs_no_more_than_into_short_ones() -> None:
    lengths = np.minimum(512, np.random.default_rng(3).lognormal(5, 1, size=10_000).astype(int) + 1)
    segments = segments_of(lengths.tolist())

    def seconds(context_length: int) -> float:
        started = time.process_time()
        packed_rows(segments, context_length)
        return time.process_time() - started

    assert min(seconds(8192) for _ in range(3)) < 4 * min(seconds(512) for _ in range(3))
