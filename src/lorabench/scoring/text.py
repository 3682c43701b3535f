"""Reads the text that one model is scored on: the whole of a file, or one split of a corpus."""

from __future__ import annotations

import codecs
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorabench.core.errors import DataError, InputError
from lorabench.core.home import user_path
from lorabench.core.progress import Progress
from lorabench.corpora.catalog import existing
from lorabench.corpora.documents import check_split
from lorabench.corpora.drawing import DrawnText, take_text
from lorabench.corpora.files import read_with_format
from lorabench.corpora.references import CorpusReference, build_reference, parts_of
from lorabench.corpora.store import load_corpus
from lorabench.experiment.schema import TrainingSettings

STANDARD_INPUT = "-"
WHOLE_FILE = "all of the file"


@dataclass(frozen=True)
class ScoredText:
    """Text, and what it is for whoever reads the figures."""

    drawn: DrawnText
    split: str
    """`train`, `validation` or `test` of a corpus; `WHOLE_FILE` for every document of a file as it is."""
    revision: str | None
    """Of the corpus; None for a whole file."""
    format: str = "text"
    """Of its rows."""


def read_scored_text(
    data: str | os.PathLike[str] | Mapping[str, Any] | CorpusReference,
    *,
    split: str | None = None,
    max_bytes: int | None = None,
    text_field: str = "text",
    progress: Progress | None = None,
) -> ScoredText:
    """Read what an entry of `datasets` names: a catalogue name, a path, or a mapping of its parts, or `-` for standard
    input, which is rows of JSON or plain text.

    A file is taken whole, as it is, unless a split is asked for; of a catalogue corpus the default is validation.
    `max_bytes`: only what an experiment's budget of so many bytes would take. Raises InputError, DownloadError or
    DiskError.
    """
    if split is not None:
        check_split(split)
    if max_bytes is not None and max_bytes < 1:
        raise InputError(f"max_bytes: {max_bytes} is not accepted; at least one byte of text")
    if data == STANDARD_INPUT:
        return _read_standard_input(split, max_bytes, text_field)
    parts = existing(parts_of(build_reference(data, "data") if isinstance(data, Mapping) else data))
    if parts.path is not None and split is None:
        documents, format = read_with_format(user_path(parts.path), parts.text or text_field, parts.format)
        return ScoredText(take_text(documents, WHOLE_FILE, max_bytes), WHOLE_FILE, None, format)
    split = split or "validation"
    corpus = load_corpus(
        parts, max_train_bytes=TrainingSettings().train_bytes, text_field=text_field, progress=progress
    )
    drawn = take_text(corpus.splits[split], split, max_bytes)
    return ScoredText(drawn, split, corpus.revision, corpus.info.format)


def _read_standard_input(split: str | None, max_bytes: int | None, text_field: str) -> ScoredText:
    """All of standard input: rows of JSON where it begins as such, else plain text. Raises InputError."""
    if split is not None:
        raise InputError("split: standard input is scored whole; save it to a file to have it split")
    content = sys.stdin.buffer.read()
    if not content.strip():
        raise InputError("data: standard input is empty")
    begins_as_json = content.removeprefix(codecs.BOM_UTF8).lstrip().startswith((b"{", b"[{", b'["'))
    with tempfile.TemporaryDirectory(prefix="lorabench-") as folder:
        path = Path(folder) / f"standard-input{'.jsonl' if begins_as_json else '.txt'}"
        path.write_bytes(content)
        try:
            documents, format = read_with_format(path, text_field)
        except DataError as error:
            raise DataError(str(error).replace(str(path), "standard input")) from None
    return ScoredText(take_text(documents, WHOLE_FILE, max_bytes), WHOLE_FILE, None, format)
