"""What a corpus is to everything downstream: documents in three splits, and the facts about them.

`load_corpus` is the one entrance, for catalogue names and local files alike. How it splits and what it removes is
told in docs/data.md; `preparation.py` does it, `prepared.py` keeps the result on disk.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from lorabench.core.errors import InputError, near_matches
from lorabench.core.progress import Progress

if TYPE_CHECKING:
    from lorabench.experiment.schema import CorpusReference

SPLITS = ("train", "validation", "test")
REPLACEMENT = "\ufffd"
_UNUSABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `hash` is the SHA-256 of its UTF-8 bytes in hex, `num_words` what `count_words` says."""

    text: str
    hash: str
    num_bytes: int
    num_words: int


class CorpusInfo(BaseModel):
    """Where a corpus came from and what is in it; goes into every record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    revision: str
    pinned: bool
    licence: str | None
    synthetic: bool
    domain: str | None
    contaminates: tuple[str, ...]
    """Models that were trained on this text."""
    notes: str | None
    num_documents: dict[str, int]
    num_bytes: dict[str, int]
    """By split."""
    removed: dict[str, int]
    """Documents removed, by reason: empty, exact_duplicates, near_duplicates."""
    near_duplicates: Literal["remove", "keep"] = "remove"
    """What was asked to be done with near copies."""
    num_repaired: int = 0
    """Documents in which NUL characters or lone surrogates became U+FFFD."""
    content_sha256: str
    """Of the documents' hashes, in order, split by split."""


@dataclass(frozen=True)
class Corpus:
    """`splits` holds train, validation and test; documents are in the order of their hashes."""

    name: str
    revision: str
    splits: dict[str, list[Document]]
    info: CorpusInfo


def make_document(text: str) -> Document:
    """`text` exactly as it is, with its hash and sizes. It must be encodable: see `repair`."""
    encoded = text.encode("utf-8")
    return Document(text, hashlib.sha256(encoded).hexdigest(), len(encoded), count_words(text))


def count_words(text: str) -> int:
    """The pieces between runs of white space, as EleutherAI's lm-evaluation-harness counts them.

    Before white space at the beginning, and after such at the end, there is an empty piece, which counts; so an empty
    text has one.
    """
    return max(1, len(text.split()) + text[:1].isspace() + text[-1:].isspace())


def repair(text: str) -> str:
    """`text` with each NUL character and each lone surrogate, which tools cannot carry, replaced by U+FFFD."""
    return _UNUSABLE.sub(REPLACEMENT, text)


def load_corpus(
    reference: str | CorpusReference,
    *,
    max_train_bytes: int | None,
    text_field: str = "text",
    progress: Progress | None = None,
) -> Corpus:
    """The corpus of a catalogue name or of a .txt, .jsonl or .parquet file, prepared on first use.

    Of a hub corpus only enough for `max_train_bytes` of training text is fetched (None: all of it); other corpora
    are always whole, so that their documents do not depend on a budget. Raises UnknownNameError, DataError,
    DownloadError or DiskError.
    """
    from lorabench.corpora.store import load_prepared

    return load_prepared(reference, max_train_bytes=max_train_bytes, text_field=text_field, progress=progress)


def read_corpus_info(
    reference: str | CorpusReference, *, max_train_bytes: int | None = None, text_field: str = "text"
) -> CorpusInfo | None:
    """What is known of a corpus that was prepared before, from its manifest alone; None where it was not."""
    from lorabench.corpora.store import read_prepared_info

    return read_prepared_info(reference, max_train_bytes=max_train_bytes, text_field=text_field)


def check_split(split: str) -> None:
    """Raise InputError, with near matches, where there is no such split."""
    if split not in SPLITS:
        raise InputError(f"split: there is no {split!r}; accepted: {', '.join(SPLITS)}.{near_matches(split, SPLITS)}")
