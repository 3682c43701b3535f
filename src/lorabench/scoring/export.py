"""Writes a split's text to a file, so that other programs can be run on exactly the same text."""

from __future__ import annotations

import json
from pathlib import Path

from lorabench.core.errors import InputError
from lorabench.core.progress import Progress
from lorabench.core.storage import write_atomically
from lorabench.corpora.documents import check_split
from lorabench.corpora.drawing import take_text
from lorabench.corpora.store import load_corpus
from lorabench.experiment.schema import TrainingSettings


def export_split(
    name_or_path: str,
    split: str,
    output: Path,
    *,
    max_bytes: int | None = None,
    text_field: str = "text",
    progress: Progress | None = None,
) -> int:
    """Write `{"text": ..., "hash": ...}` lines; returns how many. `max_bytes`: only what such a budget would take.

    A line is a text that is scored by itself, and its hash that of the document in per-document results.
    Of a hub corpus the documents are those of an experiment whose train_bytes is the larger of `max_bytes` and the
    default. Raises InputError, DownloadError or DiskError.
    """
    check_split(split)
    if output.suffix.lower() != ".jsonl":
        raise InputError(f"output: {output} should end in .jsonl, which is what is written")
    default_bytes = TrainingSettings().train_bytes
    corpus = load_corpus(
        name_or_path, max_train_bytes=max(default_bytes, max_bytes or 0), text_field=text_field, progress=progress
    )
    drawn = take_text(corpus.splits[split], split, max_bytes)
    lines = [
        json.dumps({"text": piece.text, "hash": drawn.hashes[owner]}, ensure_ascii=False) + "\n"
        for piece, owner in zip(drawn.pieces, drawn.owners, strict=True)
    ]
    write_atomically(output, "".join(lines).encode("utf-8"))
    return len(lines)
