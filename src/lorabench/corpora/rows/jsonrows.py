"""Rows of .jsonl, .ndjson and .json files, which are told apart by what is in them, not by their names.

Read are: a value a line; one array of rows; objects one after another over several lines.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lorabench.core.errors import DataError
from lorabench.corpora.rows.kinds import Located
from lorabench.corpora.rows.opening import open_bytes, read_lines, refuse_encoding

MAX_ROW_CHARACTERS = 256_000_000
"""Of one row that is written over several lines."""
_CHUNK_BYTES = 1 << 16
_BLANK = " \t\r\n"


def read_json(path: Path) -> Iterator[Located]:
    """Each row. Raises DataError with the line that is not JSON."""
    beginning = _beginning(path)
    with open_bytes(path) as content:
        if beginning == "[":
            yield from _Values(content, path).of_array()
        elif beginning == "{" and not is_lines(path):
            yield from _Values(content, path).one_after_another()
        else:
            yield from (parse_line(where, line) for where, line in read_lines(content, path) if line.strip())


def is_lines(path: Path) -> bool:
    """Whether each line is a row, so that a file can be entered at any line: its first line is a row."""
    if _beginning(path) == "[":
        return False
    with open_bytes(path) as content:
        first = next((line for _, line in read_lines(content, path) if line.strip()), "")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return first.rstrip().endswith("}")
    return True


def parse_line(where: str, line: str) -> Located:
    """The row of a line."""
    try:
        return where, json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{where} is not JSON; each line should be one row") from None


def _beginning(path: Path) -> str:
    """The first character that is not blank."""
    with open_bytes(path) as content:
        while chunk := content.read(_CHUNK_BYTES):
            text = chunk.removeprefix(codecs.BOM_UTF8).strip()
            if text:
                return text[:1].decode("latin-1")
    return ""


class _Values:
    """JSON values in a text that is read as far as the next value needs it."""

    def __init__(self, content: IO[bytes], path: Path) -> None:
        self._content, self._path = content, path
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._place = 0
        self._line = 1
        """That `_place` is in."""

    def of_array(self) -> Iterator[Located]:
        """The items of the array that the text is."""
        self._next()
        self._step()
        if self._next() == "]":
            self._step()
            self._end()
            return
        while True:
            yield self._value()
            mark = self._next()
            if mark not in ("]", ","):
                raise DataError(f"{self._where} is not JSON: an array of rows goes on with a comma or ends")
            self._step()
            if mark == "]":
                self._end()
                return
            self._next()

    def one_after_another(self) -> Iterator[Located]:
        """The values of the text, with nothing but white space between them."""
        while self._next():
            yield self._value()

    @property
    def _where(self) -> str:
        return f"{self._path}: line {self._line}"

    def _end(self) -> None:
        if self._next():
            raise DataError(f"{self._where}: something follows the array; give one array of rows, or a row a line")

    def _next(self) -> str:
        """The next character that is not blank; none at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _BLANK:
                self._line += self._text[self._place] == "\n"
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more(_CHUNK_BYTES):
                return ""

    def _step(self) -> None:
        self._place += 1

    def _more(self, num_bytes: int) -> bool:
        """Whether there was more to read."""
        chunk = self._content.read(num_bytes)
        if self._line == 1 and not self._text:
            refuse_encoding(chunk, self._path)
        try:
            text = self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise DataError(f"{self._where} is followed by bytes that are not UTF-8 ({error.reason})") from None
        self._text, self._place = self._text[self._place :] + text, 0
        return bool(chunk)

    def _value(self) -> Located:
        """The value that begins here; each failed attempt doubles what is read before the next."""
        began, wanted = self._where, _CHUNK_BYTES
        while True:
            try:
                value, end = self._decode(self._text, self._place)
            except RecursionError:
                raise DataError(f"{began} is not JSON: it is nested too deeply") from None
            except ValueError as error:
                if len(self._text) > MAX_ROW_CHARACTERS or not self._more(wanted):
                    problem = " ".join(str(error).split(": line")[0].split())[:100]
                    raise DataError(f"{began} is not JSON, nor is what begins there: {problem}") from None
                wanted *= 2
                continue
            if end == len(self._text) and self._more(wanted):
                continue  # a number may go on
            self._line += self._text.count("\n", self._place, end)
            self._place = end
            return began, value
