"""Turns tokenised documents into batches without padding, in which no document sees another.

A *segment* is one document's share of one window: the prefix token (never scored), then tokens that each predict the
next. A *row* is a window of at most `context_length` inputs holding one or more segments. A batch is its rows laid end
to end as one flat sequence, with the segment boundaries beside it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IGNORED = -100
Tokens = npt.NDArray[np.int32]
Prefix = int | Sequence[int]
"""The token that starts a window: one for all documents, or each one's own [D]."""
Marks = npt.NDArray[np.uint8]
"""Of tokens of conversations: 0 where a token is only read."""
ANSWER, END_OF_TURN = 1, 2
"""Marks of what is trained on and scored."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Inputs `[prefix or context…]` of one document and the targets they predict.

    `tokens` are the inputs followed by one last target, so `len(tokens) - 1` inputs. The first `num_unscored` targets
    are context only. Of a conversation, `marks` say which targets are answers; the others are context too.
    """

    document: int
    tokens: Tokens
    num_unscored: int = 0
    marks: Marks | None = None

    @property
    def num_inputs(self) -> int:
        return len(self.tokens) - 1

    @property
    def num_scored(self) -> int:
        if self.marks is None:
            return self.num_inputs - self.num_unscored
        return int(np.count_nonzero(self.marks[self.num_unscored :]))


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows laid end to end. T = inputs in all rows, S = segments.

    input_ids, targets, position_ids: int64 [T]; targets hold IGNORED where nothing is scored; positions restart at 0
    in each segment. segment_starts: int32 [S + 1], cumulative; a token attends causally within its own segment only.
    document_index: int32 [S], the caller's document of each segment. row_starts: int32 [R + 1], cumulative.
    marks: uint8 [T], of targets of conversations.
    """

    input_ids: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    position_ids: npt.NDArray[np.int64]
    segment_starts: npt.NDArray[np.int32]
    document_index: npt.NDArray[np.int32]
    row_starts: npt.NDArray[np.int32]
    marks: Marks | None = None

    @property
    def num_rows(self) -> int:
        return len(self.row_starts) - 1

    @property
    def num_scored(self) -> int:
        """Tokens with a target."""
        return int((self.targets != IGNORED).sum())


Row = list[Segment]


def document_segments(
    document: int,
    tokens: Tokens,
    *,
    prefix: Prefix,
    context_length: int,
    stride: int | None = None,
    marks: Marks | None = None,
) -> Iterator[Segment]:
    """Cut one document into segments of at most `context_length` inputs, each starting with the prefix token.

    Every token is scored exactly once. Without `stride` windows do not overlap. With `stride` s, each window after the
    first scores s new tokens and is given the tokens before them as context, up to the window's length. Of a
    conversation only the tokens with a mark are scored, and windows without any are left out.
    """

    for start, end, num_unscored in _windows(len(tokens), context_length, stride):
        shown = None if marks is None else marks[start:end]
        segment = Segment(document, _with_prefix(prefix_of(prefix, document), tokens[start:end]), num_unscored, shown)
        if segment.num_scored:
            yield segment


def prefix_of(prefix: Prefix, document: int) -> int:
    """The token that a document's windows start with."""
    return prefix if isinstance(prefix, int) else prefix[document]


def _windows(length: int, context_length: int, stride: int | None) -> Iterator[tuple[int, int, int]]:
    """Beginning and end of each window, and how many of its tokens were scored before."""
    if stride is None or stride >= context_length:
        yield from ((start, min(length, start + context_length), 0) for start in range(0, length, context_length))
        return
    scored_to = 0
    while scored_to < length:
        end = min(length, scored_to + (context_length if scored_to == 0 else stride))
        start = max(0, end - context_length)
        yield start, end, scored_to - start
        scored_to = end


def _with_prefix(prefix: int, tokens: Tokens) -> Tokens:
    return np.concatenate([np.array([prefix], dtype=np.int32), tokens])


def stream_rows(
    documents: Sequence[Tokens], order: Sequence[int], *, prefix: int, context_length: int
) -> Iterator[Row]:
    """Training rows: documents in the given order, each row filled to `context_length` inputs.

    A document that does not fit is continued in the next row, where it starts again with the prefix token. Every
    token is a target once; only the last row may be short.
    """
    row: Row = []
    room = context_length
    for document in order:
        tokens = documents[document]
        taken = 0
        while taken < len(tokens):
            piece = tokens[taken : taken + room]
            row.append(Segment(document, _with_prefix(prefix, piece)))
            taken += len(piece)
            room -= len(piece)
            if room == 0:
                yield row
                row, room = [], context_length
    if row:
        yield row


def packed_rows(segments: Sequence[Segment], context_length: int) -> list[Row]:
    """Evaluation rows: first-fit decreasing by length, so that short documents share a window.

    A segment goes into the row with the least room that still holds it; of several such rows, into the last one that
    came to have that room. Ties keep the given order, so the result depends on the segments alone. Cost: n log n in
    the number of segments, whatever the context length.
    """
    order = sorted(range(len(segments)), key=lambda index: -segments[index].num_inputs)
    rows: list[Row] = []
    rows_by_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the keys of `rows_by_room`, sorted: those with a row
    for index in order:
        length = segments[index].num_inputs
        place = bisect_left(rooms, length)
        if place == len(rooms):
            rows.append([])
            chosen, room = len(rows) - 1, context_length
        else:
            room = rooms[place]
            chosen = rows_by_room[room].pop()
            if not rows_by_room[room]:
                del rows_by_room[room], rooms[place]
        rows[chosen].append(segments[index])
        left = room - length
        if left and left not in rows_by_room:
            rows_by_room[left] = []
            insort(rooms, left)
        if left:
            rows_by_room[left].append(chosen)
    return rows


def make_batch(rows: Sequence[Row]) -> PackedBatch:
    """Lay rows end to end."""
    segments = [segment for row in rows for segment in row]
    lengths = np.array([segment.num_inputs for segment in segments], dtype=np.int32)
    targets = np.concatenate([segment.tokens[1:] for segment in segments]).astype(np.int64)
    starts = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(lengths, dtype=np.int32)])
    marks = None
    if any(segment.marks is not None for segment in segments):
        marks = np.concatenate([_marks_of(segment) for segment in segments])
        targets[marks == 0] = IGNORED
    for segment, start in zip(segments, starts, strict=False):
        targets[start : start + segment.num_unscored] = IGNORED
    return PackedBatch(
        input_ids=np.concatenate([segment.tokens[:-1] for segment in segments]).astype(np.int64),
        targets=targets,
        position_ids=np.concatenate([np.arange(length, dtype=np.int64) for length in lengths]),
        segment_starts=starts,
        document_index=np.array([segment.document for segment in segments], dtype=np.int32),
        row_starts=starts[np.cumsum([0, *map(len, rows)])],
        marks=marks,
    )


def lay_end_to_end(batches: Sequence[PackedBatch]) -> PackedBatch:
    """The rows of several batches as one; conversations' marks are left out."""
    ends = np.cumsum([0, *(len(batch.input_ids) for batch in batches)], dtype=np.int32)

    def starts(name: str) -> npt.NDArray[np.int32]:
        own = [getattr(batch, name)[:-1] + end for batch, end in zip(batches, ends, strict=False)]
        return np.concatenate([*own, ends[-1:]])

    return PackedBatch(
        input_ids=np.concatenate([batch.input_ids for batch in batches]),
        targets=np.concatenate([batch.targets for batch in batches]),
        position_ids=np.concatenate([batch.position_ids for batch in batches]),
        segment_starts=starts("segment_starts"),
        document_index=np.concatenate([batch.document_index for batch in batches]),
        row_starts=starts("row_starts"),
    )


def _marks_of(segment: Segment) -> Marks:
    """Its marks; of plain text every token is scored."""
    return np.full(segment.num_inputs, ANSWER, dtype=np.uint8) if segment.marks is None else segment.marks
