"""Scores documents: how many nats a model spends on each, over exactly its text.

Documents are cut into windows, the windows packed into batches without padding, and every token is scored once given
the prefix token and the tokens before it in its window. Logits are never held whole; sums are taken in float64.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from lorabench.core.device import EVALUATION_TOKENS, release_memory
from lorabench.core.errors import OutOfMemoryRunError
from lorabench.core.out_of_memory import is_out_of_memory
from lorabench.records.documents import effective_number
from lorabench.records.schema import Scores
from lorabench.tokens.packing import (
    END_OF_TURN,
    Marks,
    PackedBatch,
    Prefix,
    Row,
    Tokens,
    document_segments,
    make_batch,
    packed_rows,
)

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from lorabench.corpora.documents import Document
    from lorabench.corpora.drawing import DrawnText

_LOG = logging.getLogger("lorabench")


class Scorer(Protocol):
    """What scores a batch: a frozen base, with or without an adapter, or any other program with a model."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def token_nll(self, batch: PackedBatch) -> torch.Tensor:
        """Nats of each target, float32 [T]; 0 where nothing is scored."""


@dataclass
class Room:
    """How much is scored at once. Where memory runs out it becomes less, and stays so for what is scored after it."""

    num_tokens: int | None = None
    """About so many inputs, but always a whole row; None: what suits the device."""

    @property
    def notes(self) -> list[str]:
        """What a record should say of it; figures differ by rounding at most."""
        return [] if self.num_tokens is None else [f"memory ran out in scoring; about {self.num_tokens} tokens at once"]


@dataclass(frozen=True)
class DocumentScores:
    """Sums over what was scored of each of D documents.

    nll float64 [D] (nats); num_tokens, num_bytes, num_words int64 [D]; document_bytes int64 [D]: of whole documents,
    whatever of them was scored. Of a conversation these are sums over its answers; end_nll float64 [D] and
    num_end_tokens int64 [D] are those of the tokens that end them, and None of plain text.
    """

    hashes: tuple[str, ...]
    nll: npt.NDArray[np.float64]
    num_tokens: npt.NDArray[np.int64]
    num_bytes: npt.NDArray[np.int64]
    num_words: npt.NDArray[np.int64]
    document_bytes: npt.NDArray[np.int64]
    end_nll: npt.NDArray[np.float64] | None = None
    num_end_tokens: npt.NDArray[np.int64] | None = None

    def of_documents(self, drawn: DrawnText) -> DocumentScores:
        """These results of the drawn pieces [P], summed by document [D]."""
        starts = np.searchsorted(drawn.owners, np.arange(len(drawn.hashes)))
        return DocumentScores(
            hashes=tuple(drawn.hashes),
            nll=np.add.reduceat(self.nll, starts),
            num_tokens=np.add.reduceat(self.num_tokens, starts),
            num_bytes=np.add.reduceat(self.num_bytes, starts),
            num_words=np.add.reduceat(self.num_words, starts),
            document_bytes=np.array(drawn.document_bytes, dtype=np.int64),
            end_nll=None if self.end_nll is None else np.add.reduceat(self.end_nll, starts),
            num_end_tokens=None if self.num_end_tokens is None else np.add.reduceat(self.num_end_tokens, starts),
        )

    def total(self) -> Scores:
        """Sums over the documents."""
        return Scores(
            negative_log_likelihood=float(self.nll.sum()),
            num_tokens=int(self.num_tokens.sum()),
            num_bytes=int(self.num_bytes.sum()),
            num_words=int(self.num_words.sum()),
            num_documents=len(self.hashes),
            effective_documents=effective_number(self.num_bytes),
            end_of_turn_nll=None if self.end_nll is None else float(self.end_nll.sum()),
            num_end_of_turn_tokens=None if self.num_end_tokens is None else int(self.num_end_tokens.sum()),
        )

    def table(self, base: DocumentScores | None = None) -> pd.DataFrame:
        """One row per document, the base's nll beside the adapter's."""
        import pandas as pd

        columns: dict[str, Any] = {
            "document_hash": self.hashes,
            "num_bytes": self.num_bytes,
            "num_tokens": self.num_tokens,
            "num_words": self.num_words,
            "document_bytes": self.document_bytes,
            "nll": self.nll,
        }
        if self.end_nll is not None:
            columns |= {"end_nll": self.end_nll, "num_end_tokens": self.num_end_tokens}
        if base is not None:
            if base.hashes != self.hashes:
                raise AssertionError("the base was scored on other documents")
            columns["base_nll"] = base.nll
        return pd.DataFrame(columns)

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> DocumentScores:
        """What `table` wrote. Raises KeyError, TypeError or ValueError for what it did not write."""

        def column(name: str, kind: type) -> npt.NDArray[Any]:
            return table[name].to_numpy(dtype=kind)

        ends = "end_nll" in table.columns
        return cls(
            hashes=tuple(table["document_hash"]),
            nll=column("nll", np.float64),
            num_tokens=column("num_tokens", np.int64),
            num_bytes=column("num_bytes", np.int64),
            num_words=column("num_words", np.int64),
            document_bytes=column("document_bytes", np.int64),
            end_nll=column("end_nll", np.float64) if ends else None,
            num_end_tokens=column("num_end_tokens", np.int64) if ends else None,
        )


def score_documents(
    base: Scorer,
    documents: Sequence[Document],
    tokens: Sequence[Tokens],
    *,
    prefix: Prefix,
    context_length: int,
    stride: int | None = None,
    marks: Sequence[Marks] | None = None,
    room: Room | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DocumentScores:
    """Score every byte of every document. `tokens` [D] are the documents' token ids, without special tokens.

    `marks` [D], of conversations: their answers are scored, and what ends them apart. `progress` is called with
    (tokens scored, tokens to score) after each batch. Where memory runs out, half as much is scored at once, and `room`
    keeps it; raises OutOfMemoryRunError where a single row does not fit.
    """
    cut = partial(document_segments, prefix=prefix, context_length=context_length, stride=stride)
    marked: Sequence[Marks | None] = marks or [None] * len(tokens)
    pairs = enumerate(zip(tokens, marked, strict=True))
    segments = [segment for index, (ids, own) in pairs for segment in cut(index, ids, marks=own)]
    nll, end_nll = np.zeros((2, len(documents)), dtype=np.float64)
    num_scored = np.zeros(len(documents), dtype=np.int64)
    lengths = [len(ids) for ids in tokens] if marks is None else [np.count_nonzero(of_it) for of_it in marks]
    num_to_score = np.array(lengths, dtype=np.int64)
    to_score, done = int(num_to_score.sum()), 0
    room, waiting = room or Room(), deque(packed_rows(segments, context_length))
    while waiting:
        rows = _next_rows(waiting, room.num_tokens or EVALUATION_TOKENS[base.device.type])
        batch = make_batch(rows)
        losses = _losses(base, batch)
        if losses is None:
            waiting.extendleft(reversed(rows))
            _make_smaller(room, rows, base)
            continue
        if batch.marks is not None:
            ends = losses * (batch.marks == END_OF_TURN)
            np.add.at(end_nll, batch.document_index, np.add.reduceat(ends, batch.segment_starts[:-1]))
            losses = losses - ends
        np.add.at(nll, batch.document_index, np.add.reduceat(losses, batch.segment_starts[:-1]))
        for segment in (segment for row in rows for segment in row):
            num_scored[segment.document] += segment.num_scored
        done += batch.num_scored
        if progress is not None:
            progress(done, to_score)
    if not np.array_equal(num_scored, num_to_score):
        raise AssertionError("a token was not scored exactly once")
    num_end_tokens = None if marks is None else np.array([(of_it == END_OF_TURN).sum() for of_it in marks])
    return DocumentScores(
        hashes=tuple(document.hash for document in documents),
        nll=nll,
        num_tokens=num_to_score if num_end_tokens is None else num_to_score - num_end_tokens,
        num_bytes=np.array([document.scored_bytes for document in documents], dtype=np.int64),
        num_words=np.array([document.scored_words for document in documents], dtype=np.int64),
        document_bytes=np.array([document.num_bytes for document in documents], dtype=np.int64),
        end_nll=None if marks is None else end_nll,
        num_end_tokens=num_end_tokens,
    )


def _next_rows(waiting: deque[Row], max_tokens: int) -> list[Row]:
    """Take the next rows, of about `max_tokens` inputs together; long windows come first."""
    rows = [waiting.popleft()]
    size = _num_inputs(rows[0])
    while waiting and size + _num_inputs(waiting[0]) <= max_tokens:
        rows.append(waiting.popleft())
        size += _num_inputs(rows[-1])
    return rows


def _num_inputs(row: Row) -> int:
    return sum(segment.num_inputs for segment in row)


def _losses(base: Scorer, batch: PackedBatch) -> npt.NDArray[np.float64] | None:
    """Nats of each target, float64 [T]; None where memory ran out."""
    try:
        losses: npt.NDArray[np.float64] = base.token_nll(batch).to(device="cpu").double().numpy()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None
    return losses


def _make_smaller(room: Room, rows: Sequence[Row], base: Scorer) -> None:
    """Half of what did not fit. Raises OutOfMemoryRunError where that was a single row."""
    size = sum(map(_num_inputs, rows))
    if len(rows) == 1:
        raise OutOfMemoryRunError(
            f"memory ran out in scoring a single row of {size} tokens; give a shorter training.context_length"
        )
    room.num_tokens = size // 2
    release_memory(base.device)
    _LOG.warning("memory ran out scoring %d tokens at once; going on with %d", size, room.num_tokens)
