"""Which rows of a repository on the hub a corpus is, and what of each is text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lorabench.core.catalog import FromHub
from lorabench.core.errors import DataError
from lorabench.corpora.conversations import Format, Row, has_text
from lorabench.corpora.documents import Split
from lorabench.corpora.entry import DatasetEntry
from lorabench.corpora.files import Reading

_TITLE = re.compile(r"= (?!= )(?P<title>\S.*?)(?<! =) =")


class HubRows(FromHub, DatasetEntry):
    """Which rows of a repository are read, and what of each is text."""

    source: Literal["hub"]
    config: str | None = None
    """The repository's configuration."""
    files: dict[str, str | list[str]] = Field(default_factory=dict)
    """The repository's split -> patterns of its files, where the repository itself does not name them."""
    splits: dict[Split, str] = Field(default={"train": "train"})
    """Our split -> the repository's. A split that is not named is made from train by the documents' hashes."""
    text_fields: tuple[str, ...] = ("text",)
    """Joined by `separator`; a dotted path steps into nested fields, and lists are joined too."""
    separator: str = "\n\n"
    documents: Literal["rows", "wikitext-pages"] = "rows"
    """What a document is: a row, or the rows between two page headings."""
    rows: Format | None = None
    """The format of rows that are conversations; None: their text fields are the text."""

    def splits_among(self, names: Sequence[str]) -> Mapping[Split, str]:
        """Our split -> the repository's, of those that it has. Raises DataError."""
        missing = next((name for name in self.splits.values() if name not in names), None)
        if missing is not None:
            raise DataError(
                f"dataset {self.name}: {self.repository} has no split {missing!r}; it has {', '.join(map(repr, names))}"
            )
        return self.splits

    def expected_format(self) -> str | None:
        """As the entry says it."""
        return self.rows

    def read_rows(self, rows: Iterable[Mapping[str, Any]]) -> tuple[Format, Iterator[Row]]:
        """The rows' format, and what is read of each. Raises DataError for what does not fit it."""
        if self.rows is None or self.rows == "text":
            texts = _field_texts(rows, self)
            return "text", join_pages(texts) if self.documents == "wikitext-pages" else texts
        return self.rows, self.read_as(Reading(self.rows, self.text_fields), rows)

    def read_as(self, reading: Reading, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
        """What one way of reading gives of each row that has text, or an answer. Raises DataError."""
        where = f"dataset {self.name}: a row of {self.repository}"
        return filter(has_text, reading.rows((where, row) for row in rows))

    @model_validator(mode="after")
    def _has_a_training_split(self) -> Self:
        if "train" not in self.splits:
            raise ValueError("splits should name the repository's split for train")
        return self


def _field_texts(rows: Iterable[Mapping[str, Any]], entry: HubRows) -> Iterator[str]:
    """Each row's text: its text fields joined. Rows without any are left out."""
    for row in rows:
        texts = [text for field in entry.text_fields for text in _flatten(_look_up(row, field, entry), field, entry)]
        if entry.documents == "wikitext-pages" or any(text.strip() for text in texts):
            yield entry.separator.join(texts)


def _look_up(row: Any, field: str, entry: HubRows) -> Any:
    """The value at a dotted path; a step into a list is a step into each of its items."""
    value = row
    for step in field.split("."):
        if isinstance(value, list):
            value = [item.get(step) if isinstance(item, Mapping) else item for item in value]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            accepted = ", ".join(_paths(row))
            raise DataError(
                f"dataset {entry.name}: rows of {entry.repository} have no field {field!r}; they have {accepted}"
            )
    return value


def _paths(row: Mapping[str, Any]) -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{path}" for path in _paths(value))
        else:
            yield str(name)


def _flatten(value: Any, field: str, entry: HubRows) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for item in value:
            yield from _flatten(item, field, entry)
    elif value is not None:
        raise DataError(
            f"dataset {entry.name}: field {field!r} of {entry.repository} holds {type(value).__name__}, not text"
        )


def join_pages(lines: Iterable[str]) -> Iterator[str]:
    """Rejoin WikiText's rows into pages. A page starts at a heading ` = Title = `, not at ` = = Section = = `."""
    page: list[str] = []
    for line in lines:
        if _TITLE.fullmatch(line.strip()) and "".join(page).strip():
            yield "".join(page)
            page = []
        page.append(line if line.endswith("\n") else line + "\n")
    if "".join(page).strip():
        yield "".join(page)
