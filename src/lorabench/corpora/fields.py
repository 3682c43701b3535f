"""What of a row is its text: one field, several joined, or a template; found from the fields where nothing is said."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lorabench.core.errors import DataError

TextFields = str | tuple[str, ...]
"""A field's name or dotted path, several of them, or a template with fields in braces."""
SEPARATOR = "\n\n"
"""Between the texts of several fields, and between the items of a list."""
DEFAULT_FIELD = "text"
WELL_KNOWN = (
    DEFAULT_FIELD,
    "content",
    "body",
    "document",
    "article",
    "story",
    "abstract",
    "raw_content",
    "code",
    "markdown",
)
"""Names under which text is found, the first of them first."""
_MAX_FIELDS = 50


def check_fields(value: Any) -> TextFields:
    """`value` as the fields of a text. Raises ValueError."""
    fields = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not fields or len(fields) > _MAX_FIELDS or not all(isinstance(field, str) and field for field in fields):
        raise ValueError("should be a field, a dotted path, a list of them, or a template with {field}")
    for field in fields:
        if is_template(field):
            _names_in(field)
    return fields[0] if len(fields) == 1 else fields


def is_template(field: str) -> bool:
    """Whether it is a text with fields in braces rather than a field."""
    return "{" in field


def names_of(fields: TextFields) -> list[str]:
    """The fields and paths that a text is made of."""
    every = (fields,) if isinstance(fields, str) else fields
    return [name for field in every for name in (_names_in(field) if is_template(field) else [field])]


def columns_of(fields: TextFields) -> list[str]:
    """Names under which a table may hold the fields: a path's own, and its first step."""
    return list(dict.fromkeys(part for name in names_of(fields) for part in (name, name.split(".")[0])))


def find_field(row: object, where: str) -> TextFields | None:
    """The field of a row that holds its text: a well-known one, or the only one with text.

    None for rows that are strings. Raises DataError, listing the fields, where it is not clear.
    """
    if not isinstance(row, Mapping):
        return None
    if DEFAULT_FIELD in row:
        return DEFAULT_FIELD
    texts = [str(name) for name, value in row.items() if _is_text(value)]
    known = [name for name in WELL_KNOWN if name in texts]
    if known or len(texts) == 1:
        return (known or texts)[0]
    raise DataError(
        f"{where} has no field 'text'; it has {show_names(_paths(row))}; say by `text` which of them is the text"
    )


def read_text(row: object, fields: TextFields | None, where: str) -> str:
    """The text of a row; "" where its fields hold nothing. Raises DataError for what is no text."""
    if isinstance(row, str):
        return row
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is not a JSON object with fields, nor a text")
    wanted = DEFAULT_FIELD if fields is None else fields
    if isinstance(wanted, str):
        if is_template(wanted):
            return _fill(wanted, row, where)
        return _one(row, wanted, where)
    found = [text for field in wanted if (text := read_text(row, field, where)).strip()]
    return SEPARATOR.join(found)


def show_names(names: Iterable[Any]) -> str:
    """Some names for a message."""
    shown = [repr(str(name)[:40]) for name in list(names)[:12]]
    return ", ".join(shown) or "no fields"


def _fill(template: str, row: Mapping[str, Any], where: str) -> str:
    parts = []
    is_empty = True
    for literal, name, _, _ in string.Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            value = _look_up(row, name, where)
            text = str(value) if _is_number(value) else _one(row, name, where)
            is_empty = is_empty and not text.strip()
            parts.append(text)
    return "" if is_empty else "".join(parts)


def _names_in(template: str) -> list[str]:
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the template cannot be read: {error}; write a brace itself as {{{{ or }}}}") from None
    names = [name for _, name, _, _ in pieces if name is not None]
    if not all(names) or any(form or conversion for _, _, form, conversion in pieces):
        raise ValueError("a template has the names of fields alone in its braces, such as {title}")
    if not names:
        raise ValueError("a template needs at least one {field}")
    return names


def _one(row: Mapping[str, Any], field: str, where: str) -> str:
    value = _look_up(row, field, where)
    if isinstance(value, list | tuple):
        return SEPARATOR.join(text for item in value if (text := _as_text(item, field, where)))
    return _as_text(value, field, where)


def _look_up(row: Mapping[str, Any], field: str, where: str) -> Any:
    """The value under a name, else at a dotted path; a step into a list is one into each of its items."""
    if field in row:
        return row[field]
    value: Any = row
    for step in field.split("."):
        if isinstance(value, list | tuple):
            value = [item.get(step) if isinstance(item, Mapping) else item for item in value]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        elif value is None:
            return None
        else:
            raise DataError(f"{where} has no field {field!r}; it has {show_names(_paths(row))}")
    return value


def _paths(row: Mapping[str, Any]) -> list[str]:
    return [
        path
        for name, value in row.items()
        for path in ([f"{name}.{inner}" for inner in _paths(value)] if isinstance(value, Mapping) else [str(name)])
    ]


def _as_text(value: object, field: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    kind = "NaN" if isinstance(value, float) and math.isnan(value) else type(value).__name__
    raise DataError(f"{where}: the field {field!r} holds {kind}, not text")


def _is_number(value: object) -> bool:
    """Whether a template may write it."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    """Whether it holds text, rather than a number, a date or an identifier that is written as one."""
    if isinstance(value, str):
        return re.search(r"[^\W\d_]", value) is not None
    return isinstance(value, Sequence) and bool(value) and all(isinstance(item, str) for item in value)
