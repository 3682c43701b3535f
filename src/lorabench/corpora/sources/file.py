"""Corpora in a file of the user's own: .txt, .jsonl or .parquet."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar, Literal

from lorabench.core.home import user_path
from lorabench.core.progress import Progress
from lorabench.core.revisions import content_name, file_revision
from lorabench.corpora.documents import MIN_DOCUMENTS
from lorabench.corpora.entry import DatasetEntry, SourceTexts
from lorabench.corpora.files import check_local_file, cut_into_pieces, read_local_texts
from lorabench.corpora.references import SUFFIXES


class FileCorpus(DatasetEntry):
    """One file. Its revision is the hash of its content, and of what else decides which documents it gives."""

    source: Literal["file"] = "file"
    path: Path
    text_field: str = "text"
    """The field or column of a .jsonl or .parquet file that holds the text."""
    licence: str | None = None
    download_bytes: int = 0
    format: str = "file"
    domain: str | None = None
    approximate_bytes: int = 0

    read_by_plans: ClassVar[bool] = True

    @classmethod
    def of(
        cls, path: Path, *, name: str | None, text_field: str, near_duplicates: Literal["remove", "keep"]
    ) -> FileCorpus:
        """The corpus of a file: called as the user says, else by the file's name and content. Raises DataError."""
        # Without validation, as paths may hold bytes that are no text.
        corpus = cls.model_construct(
            name=name or path.stem, path=path, text_field=text_field, near_duplicates=near_duplicates
        )
        revision = corpus.revision_of_documents(corpus.expected_revision())
        return corpus if name else corpus.model_copy(update={"name": content_name(path.stem, revision)})

    def expected_revision(self) -> str:
        """The hash of the content as it is now. Raises DataError where the file cannot be used."""
        path = user_path(self.path)
        check_local_file(path)
        return file_revision(path)

    def revision_of_documents(self, revision: str) -> str:
        """The content's hash; another one where a field was chosen, or splits are made in another way."""
        is_plain = self.path.suffix.lower() == SUFFIXES[0] or self.text_field == "text"
        marks = super().revision_of_documents("")
        choices = [choice for choice in ("" if is_plain else self.text_field, marks) if choice]
        if not choices:
            return revision
        return hashlib.sha256("\0".join([revision, *choices]).encode("utf-8", "backslashreplace")).hexdigest()

    def identity(self) -> Any:
        """Not the path, as the same content is the same corpus everywhere."""
        return self.text_field

    def read(self, max_bytes: int | None, progress: Progress | None = None) -> SourceTexts:
        """The whole file; a .txt file that blank lines hardly divide is cut into pieces. Raises DataError."""
        path = user_path(self.path)
        if progress is not None:
            progress(f"reading {path}", 0, None)
        revision = self.expected_revision()
        texts = read_local_texts(path, self.text_field)
        notes = []
        if path.suffix.lower() == ".txt" and len(texts) < MIN_DOCUMENTS:
            pieces = cut_into_pieces(texts)
            notes.append(
                f"the file has {len(texts)} documents between blank lines; they were cut into {len(pieces)} pieces, so "
                "neighbouring pieces can lie in different splits"
            )
            texts = pieces
        return SourceTexts({"train": texts}, revision, notes=notes)


SOURCE = FileCorpus
