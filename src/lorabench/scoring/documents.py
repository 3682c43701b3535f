"""Scores documents: how many nats a model spends on each, over exactly its text.

Documents are cut into windows, the windows packed into batches without padding, and every token is scored once given
the prefix token and the tokens before it in its window. Logits are never held whole; sums are taken in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lorabench.core.device import EVALUATION_TOKENS
from lorabench.records.documents import effective_number
from lorabench.records.schema import Scores
from lorabench.tokens.packing import Row, Segment, Tokens, document_segments, make_batch, packed_rows

if TYPE_CHECKING:
    import pandas as pd

    from lorabench.corpora.documents import Document
    from lorabench.corpora.drawing import DrawnText
    from lorabench.models.base import FrozenBase


@dataclass(frozen=True)
class DocumentScores:
    """Sums over what was scored of each of D documents.

    nll float64 [D] (nats); num_tokens, num_bytes, num_words int64 [D]; document_bytes int64 [D]: of whole documents,
    whatever of them was scored.
    """

    hashes: tuple[str, ...]
    nll: npt.NDArray[np.float64]
    num_tokens: npt.NDArray[np.int64]
    num_bytes: npt.NDArray[np.int64]
    num_words: npt.NDArray[np.int64]
    document_bytes: npt.NDArray[np.int64]

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
        )

    def table(self, base: DocumentScores | None = None) -> pd.DataFrame:
        """One row per document, the base's nll beside the adapter's."""
        import pandas as pd

        columns = {
            "document_hash": self.hashes,
            "num_bytes": self.num_bytes,
            "num_tokens": self.num_tokens,
            "num_words": self.num_words,
            "document_bytes": self.document_bytes,
            "nll": self.nll,
        }
        if base is not None:
            if base.hashes != self.hashes:
                raise AssertionError("the base was scored on other documents")
            columns["base_nll"] = base.nll
        return pd.DataFrame(columns)


def score_documents(
    base: FrozenBase,
    documents: Sequence[Document],
    tokens: Sequence[Tokens],
    *,
    prefix: int,
    context_length: int,
    stride: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DocumentScores:
    """Score every byte of every document. `tokens` [D] are the documents' token ids, without special tokens.

    `progress` is called with (tokens scored, tokens to score) after each batch.
    """
    segments = [
        segment
        for index, ids in enumerate(tokens)
        for segment in document_segments(index, ids, prefix=prefix, context_length=context_length, stride=stride)
    ]
    nll = np.zeros(len(documents), dtype=np.float64)
    num_scored = np.zeros(len(documents), dtype=np.int64)
    num_tokens = np.array([len(ids) for ids in tokens], dtype=np.int64)
    to_score, done = int(num_tokens.sum()), 0
    for rows in _batches(segments, context_length, EVALUATION_TOKENS[base.device.type]):
        batch = make_batch(rows)
        losses = base.token_nll(batch).to(device="cpu").double().numpy()
        np.add.at(nll, batch.document_index, np.add.reduceat(losses, batch.segment_starts[:-1]))
        for segment in (segment for row in rows for segment in row):
            num_scored[segment.document] += segment.num_scored
        done += batch.num_scored
        if progress is not None:
            progress(done, to_score)
    if not np.array_equal(num_scored, num_tokens):
        raise AssertionError("a token was not scored exactly once")
    num_bytes = np.array([document.num_bytes for document in documents], dtype=np.int64)
    return DocumentScores(
        hashes=tuple(document.hash for document in documents),
        nll=nll,
        num_tokens=num_tokens,
        num_bytes=num_bytes,
        num_words=np.array([document.num_words for document in documents], dtype=np.int64),
        document_bytes=num_bytes,
    )


def _batches(segments: Sequence[Segment], context_length: int, max_tokens: int) -> Iterator[list[Row]]:
    """Rows grouped so that a batch holds about `max_tokens` inputs; long windows come first."""
    batch: list[Row] = []
    size = 0
    for row in packed_rows(segments, context_length):
        row_size = sum(segment.num_inputs for segment in row)
        if batch and size + row_size > max_tokens:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row_size
    if batch:
        yield batch
