from __future__ import annotations

import numpy as np
import pytest

from lorabench.data.packing import IGNORED, document_segments, make_batch, packed_rows, stream_rows

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
