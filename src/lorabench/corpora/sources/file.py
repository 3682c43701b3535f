"""Corpora in files of the user's own: one, those of a folder or a glob, or those of each split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from lorabench.core.errors import DataError
from lorabench.core.home import user_path
from lorabench.core.plain_yaml import show_value
from lorabench.core.progress import Progress
from lorabench.core.revisions import content_name, file_revision
from lorabench.corpora.conversations import Format, Row
from lorabench.corpora.documents import MIN_DOCUMENTS, Split
from lorabench.corpora.entry import DatasetEntry, SourceTexts
from lorabench.corpora.fields import DEFAULT_FIELD, TextFields, check_fields
from lorabench.corpora.files import Reading, cut_into_pieces, find_reading
from lorabench.corpora.rows.draw import can_be_entered, draw_rows, hash_of_places
from lorabench.corpora.rows.gather import gather, gather_splits
from lorabench.corpora.rows.kinds import Kind, kind_of, plain_stem
from lorabench.corpora.rows.read import check_file, read_rows
from lorabench.corpora.rows.text import has_bare_returns
from lorabench.corpora.window import HELD_OUT_BYTES, WINDOW_FACTOR, draw, num_bytes

WHOLE_BYTES = 64_000_000
"""Larger ones are read in part: as much as the largest budget of the experiment needs."""
STEP_BYTES = 16_000_000
"""What is drawn from large files is this, or twice, four times… as much, so that few budgets draw other text."""
HEADROOM = 1.4
"""What is drawn per byte of training text: the held-out splits and what cleaning removes come out of it."""
COMPRESSED = 4
"""Bytes of text that a byte of a compressed file counts as."""

Files = Mapping[str, Sequence[Path]]
"""By split."""


class FileCorpus(DatasetEntry):
    """Files. The revision is the hash of their content, and of what else decides which documents they give."""

    source: Literal["file"] = "file"
    path: Path | None = None
    """A file, folder or glob, of which the splits are made."""
    splits: dict[Split, tuple[str, ...]] = Field(default_factory=dict)
    """Or the paths of each split, train among them; a split that is not named is made from train."""
    text_field: TextFields = DEFAULT_FIELD
    """The fields that hold the text, of files that have fields."""
    rows: Format | None = None
    """The format of the rows; None: found from their fields."""
    drawn_bytes: int | None = None
    """Bytes of text that are drawn from files that are too large to be read whole."""
    is_named: bool = True
    licence: str | None = None
    download_bytes: int = 0
    format: str = "file"
    domain: str | None = None
    approximate_bytes: int = 0

    read_by_plans: ClassVar[bool] = True

    @field_validator("text_field", mode="before")
    @classmethod
    def _check_text_field(cls, value: Any) -> Any:
        return check_fields(value)

    @model_validator(mode="after")
    def _has_files(self) -> Self:
        if (self.path is None) == ("train" not in self.splits):
            raise ValueError("should have a path, or splits with train among them")
        return self

    @classmethod
    def of(
        cls,
        paths: Mapping[Split, tuple[str, ...]],
        *,
        is_split: bool,
        name: str | None,
        text_field: TextFields,
        near_duplicates: Literal["remove", "keep"],
        rows: Format | None = None,
        max_train_bytes: int | None = None,
    ) -> FileCorpus:
        """The corpus of some paths by split, or of one path of which the splits are made, drawn for a budget.

        It is called as the user says, else by the name of the first and their content. Raises DataError.
        """
        # Without validation, as paths may hold bytes that are no text.
        first = Path(paths["train"][0])
        corpus = cls.model_construct(
            name=name or _stem_of(first),
            path=None if is_split else first,
            splits=dict(paths) if is_split else {},
            text_field=text_field,
            near_duplicates=near_duplicates,
            rows=rows,
            is_named=name is not None,
        )
        drawn = corpus.drawn_for(max_train_bytes)
        return drawn._called() if drawn is corpus else drawn

    def _called(self) -> Self:
        """With the name that its content gives, unless the user said one."""
        if self.is_named:
            return self
        stem = _stem_of(Path(self.path or self.splits["train"][0]))
        return self.model_copy(
            update={"name": content_name(stem, self.revision_of_documents(self.expected_revision()))}
        )

    def files(self) -> dict[str, list[Path]]:
        """Those that are read, by split. Raises DataError."""
        if self.path is not None:
            return {str(split): found for split, found in gather_splits(user_path(self.path)).items()}
        return {
            split: [file for path in self.splits[split] for file in gather(user_path(path))] for split in self.splits
        }

    def drawn_for(self, max_train_bytes: int | None) -> Self:
        """Of large files as much as this budget needs, which gives other documents and so another name."""
        if self.drawn_bytes or max_train_bytes is None or _num_bytes(self.files()) <= WHOLE_BYTES:
            return self
        drawn = STEP_BYTES
        while drawn < HEADROOM * max_train_bytes:
            drawn *= 2
        return self.model_copy(update={"drawn_bytes": drawn})._called()

    def bytes_to_read(self, max_train_bytes: int | None) -> int | None:
        """What is drawn of large files; else all."""
        return self.drawn_bytes

    def expected_revision(self) -> str:
        """The hash of the content as it is now. Raises DataError where the files cannot be used."""
        files = self.files()
        for file in (file for found in files.values() for file in found):
            check_file(file)
        if list(files) == ["train"] and len(files["train"]) == 1:
            return self._revision_of(files["train"][0], 1)
        digest = hashlib.sha256()
        for split, found in files.items():
            for file in found:
                digest.update(f"{split}\0{_format_of(file)}\0{self._revision_of(file, len(found))}\n".encode())
        return digest.hexdigest()

    def _revision_of(self, file: Path, num_files: int) -> str:
        """The hash of a file's content, or of all that is drawn from."""
        if self.drawn_bytes is None or file.stat().st_size <= WHOLE_BYTES or not can_be_entered(file):
            return file_revision(file)
        return hash_of_places(file, num_files, WINDOW_FACTOR * self.drawn_bytes)

    def revision_of_documents(self, revision: str) -> str:
        """The content's hash; another one where a field was chosen, or splits are made in another way."""
        marks = super().revision_of_documents("")
        choices = [choice for choice in (self._choice_of_field(), marks, *self._choices_of_reading()) if choice]
        if not choices:
            return revision
        return hashlib.sha256("\0".join([revision, *choices]).encode("utf-8", "backslashreplace")).hexdigest()

    def _choice_of_field(self) -> str:
        if self.text_field == DEFAULT_FIELD or all(
            _kind(file).format == "text" for files in self.files().values() for file in files
        ):
            return ""
        return self.text_field if isinstance(self.text_field, str) else json.dumps(self.text_field)

    def _choices_of_reading(self) -> list[str]:
        """What else tells two readings of the same bytes apart."""
        files = [file for found in self.files().values() for file in found]
        formats = {_format_of(file) for file in files} & {"csv", "tsv"} if len(files) == 1 else set()
        choices = [f"read as {format}" for format in sorted(formats)]
        if any(_kind(file).format == "text" and has_bare_returns(file) for file in files):
            choices.append("lines end in carriage returns")
        choices += [] if self.rows in (None, "text") else [f"rows of {self.rows}"]
        return choices + ([] if self.drawn_bytes is None else [f"{self.drawn_bytes} bytes drawn"])

    def identity(self) -> Any:
        """Not the path, as the same content is the same corpus everywhere."""
        return self.text_field if self.rows in (None, "text") else [self.text_field, self.rows]

    def read(self, max_bytes: int | None, progress: Progress | None = None) -> SourceTexts:
        """The whole text, or what is drawn of large files. Raises DataError.

        Text that blank lines hardly divide is cut into pieces.
        """
        files = self.files()
        revision = self.expected_revision()
        texts: dict[str, list[Row]] = {}
        formats: list[Format] = []
        notes: list[str] = []
        for split, found in files.items():
            if progress is not None:
                progress(f"reading {found[0]}" + (f" and {len(found) - 1} more" if found[1:] else ""), 0, None)
            reading = find_reading(found, self.text_field, self.rows)
            formats.append(reading.format)
            if reading.fields != self.text_field:
                notes.append(f"{split}: the text is the field {show_value(reading.fields)}, found as no other holds it")
            budget = max_bytes if split == "train" or max_bytes is None else min(HELD_OUT_BYTES, max_bytes)
            texts[split], how = _read(found, reading, budget)
            notes += [f"{split}: {how}"] if how else []
            if len(texts[split]) < MIN_DOCUMENTS and split == "train":
                texts[split] = _cut(found, texts[split], notes)
        if ("text" in formats) and len(set(formats)) > 1:
            raise DataError(f"{self.name}: of its splits some are plain text and some conversations; give one format")
        return SourceTexts(texts, revision, notes=notes, format=formats[0])


def _read(files: Sequence[Path], reading: Reading, max_bytes: int | None) -> tuple[list[Row], str | None]:
    """The texts of a split, and how they were drawn where the files are too large to be read whole."""
    if max_bytes is None or _num_bytes({"": files}) <= WHOLE_BYTES:
        return [row for file in files for row in reading.rows(read_rows(file, reading.columns))], None
    rows, places = draw_rows(files, reading.columns, WINDOW_FACTOR * max_bytes)
    read: list[Row] = []
    size = 0
    for row in reading.rows(rows):
        read.append(row)
        size += num_bytes(row)
        if size >= WINDOW_FACTOR * max_bytes:
            break
    drawn = draw(read, max_bytes)
    return drawn, f"{len(drawn)} documents drawn by hash from {len(read)} ({size} bytes) at {places}"


def _cut(files: Sequence[Path], rows: list[Row], notes: list[str]) -> list[Row]:
    """Pieces of plain text that has few blank lines; rows as they are."""
    if any(_kind(file).format != "text" for file in files):
        return rows
    texts = [row for row in rows if isinstance(row, str)]
    pieces: list[Row] = [*cut_into_pieces(texts)]
    where = "the file has" if len(files) == 1 else f"the {len(files)} files have"
    notes.append(
        f"{where} {len(texts)} documents between blank lines; they were cut into {len(pieces)} pieces, so "
        "neighbouring pieces can lie in different splits"
    )
    return pieces


def _num_bytes(files: Files) -> int:
    """Of all splits; those of compressed files count as `COMPRESSED`."""
    try:
        return sum(
            file.stat().st_size * (COMPRESSED if _kind(file).compression else 1)
            for found in files.values()
            for file in found
        )
    except OSError as error:
        raise DataError(f"{error.filename}: it cannot be read: {error.strerror}") from None


def _kind(file: Path) -> Kind:
    return kind_of(file) or check_file(file)


def _format_of(file: Path) -> str:
    return _kind(file).format


def _stem_of(path: Path) -> str:
    """What files are called: by their name, or by the folder that a glob looks into."""
    stem = plain_stem(path)
    return stem if not any(mark in stem for mark in "*?[") else plain_stem(path.parent) or "files"


SOURCE = FileCorpus
