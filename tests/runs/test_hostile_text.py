"""Corpora that break things: odd bytes, odd sizes, nothing at all. Each is used whole or refused in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

import lorabench
from lorabench.core.errors import InputError
from lorabench.records.schema import Status
from tests.runs.conftest import WORDS, ExperimentWriter, write_corpus


def lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def many(text: Callable[[int], str], count: int = 60) -> bytes:
    return lines(*(text(index) for index in range(count)))


def words(index: int) -> str:
    return " ".join(WORDS[(index * 7 + step * step) % len(WORDS)] for step in range(20))


USABLE: dict[str, tuple[str, bytes]] = {
    "NUL bytes": ("a.jsonl", many(lambda i: f"{words(i)}\0{i}\0")),
    "NUL bytes in a text file": ("a.txt", "\n\n".join(f"{words(i)} \0 {i}" for i in range(60)).encode()),
    "lone surrogates": ("a.jsonl", many(lambda i: f"{words(i)} \ud800 {i} \udfff")),
    "one-byte documents": ("a.txt", "\n\n".join("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ").encode()),
    "no final newline, Windows line ends": ("a.txt", "\r\n\r\n".join(f"{words(i)} {i}" for i in range(60)).encode()),
    "text in every script": ("a.jsonl", many(lambda i: f"{words(i)} नमस्ते 你好 مرحبا \u202e👩‍👩‍👧 é{i}")),
    "control characters and escape codes": ("a.jsonl", many(lambda i: f"\x1b[31m{words(i)}\x07\x08\x7f{i}")),
    "special tokens as text": ("a.jsonl", many(lambda i: f"<|endoftext|>{words(i)} <s> </s> [PAD] {i} <bos><eos>")),
    "very many empty documents": ("a.jsonl", b'{"text": ""}\n' * 20_000 + many(lambda i: f"{words(i)} {i}")),
    "a number of thousands of digits beside the text": (
        "a.jsonl",
        b"".join(b'{"n": %s, "text": %s}\n' % (b"1" * 400, json.dumps(f"{words(i)} {i}").encode()) for i in range(60)),
    ),
}


@pytest.mark.parametrize("what", USABLE)
def test_odd_text_is_trained_on_and_scored_whole(experiment: ExperimentWriter, tmp_path: Path, what: str) -> None:
    name, content = USABLE[what]
    path = tmp_path / name
    path.write_bytes(content)
    (record,) = lorabench.run(
        experiment(adapter={"rank": 2}, datasets=[str(path)]), tmp_path / "out", trackers=["none"]
    ).records
    assert record.status is Status.COMPLETED, record.status_reason
    assert record.test is not None
    assert math.isfinite(record.test.negative_log_likelihood)


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "nothing": ("a.jsonl", b"", "empty"),
    "white space only": ("a.txt", b" \n\n\t\n" * 100, "documents"),
    "empty documents only": ("a.jsonl", b'{"text": "  "}\n' * 50, "documents"),
    "the same document again and again": ("a.jsonl", lines("the same") * 50, "documents"),
    "near duplicates only": ("a.jsonl", many(lambda i: words(3) * 20 + str(i)), "duplicates"),
    "Latin-1": ("a.txt", "caf\xe9\n\n".encode("latin-1") * 50, "not UTF-8"),
    "UTF-16": ("a.txt", "word\n\n".encode("utf-16") * 50, "not UTF-8"),
    "a picture": ("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "not UTF-8"),
    "numbers instead of text": ("a.jsonl", b'{"text": 3}\n' * 50, "holds int"),
    "lists of numbers": ("a.jsonl", b'{"text": [3]}\n' * 50, "holds"),
    "arrays": ("a.jsonl", b'["text"]\n' * 50, "something follows the array"),
    "deeply nested JSON": ("a.jsonl", b"[" * 200_000 + b"\n", "not JSON"),
    "a number of too many digits": ("a.jsonl", b'{"text": ' + b"1" * 10_000 + b"}\n", "not JSON"),
    "a line cut short": ("a.jsonl", lines("one", "two") + b'{"text": "thr', "line 3"),
    "a Parquet file cut short": ("a.parquet", b"PAR1" + b"\0" * 500, "Parquet"),
    "another kind of file": ("a.docx", b"text\nhello\n", "a.docx"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_text_that_cannot_be_used_is_refused(experiment: ExperimentWriter, tmp_path: Path, what: str) -> None:
    name, content, said = REFUSED[what]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        lorabench.plan(experiment(datasets=[str(path)]))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fields_of_strange_names(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    field = "../te\x1b[31mxt\n\ud800"
    path.write_text("".join(json.dumps({field: f"{words(i)} {i}"}) + "\n" for i in range(40)))
    (group,) = lorabench.plan(experiment(datasets=[str(path)])).groups
    note = group.dataset.notes
    assert note is not None
    assert "the text is the field" in note
    assert note.isprintable()


@pytest.mark.alone
@pytest.mark.slow
def test_a_line_of_fifty_megabytes(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "long.jsonl")
    long = " ".join(words(index) for index in range(350_000))
    with path.open("ab") as file:
        file.write(lines(long + "x" * (50_000_000 - len(long))))
    (record,) = lorabench.run(
        experiment(adapter={"rank": 2}, datasets=[str(path)]), tmp_path / "out", trackers=["none"]
    ).records
    assert record.status is Status.COMPLETED, record.status_reason
    assert record.dataset is not None
    assert sum(record.dataset.num_bytes.values()) > 50_000_000
