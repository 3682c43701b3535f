from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lorabench.core.catalog import read_entries
from lorabench.core.errors import DataError
from lorabench.corpora.catalog import SOURCES, find_corpus
from lorabench.corpora.files import cut_into_pieces, read_local_documents, read_local_rows
from lorabench.corpora.store import load_corpus, load_prepared, read_corpus_info

TEXTS = [f"Text number {number} — with its own words: {number * 7919}." for number in range(40)]


def write_jsonl(path: Path, rows: list[object]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def test_txt_is_divided_by_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff one\r\ntwo \r\n \t\r\n\r\nthree  \n\n\n\tfour".encode())
    assert read_local_rows(path) == [" one\r\ntwo ", "three  ", "\tfour"]


def test_jsonl_and_parquet_keep_text_exactly(tmp_path: Path) -> None:
    texts = ["  space around \n", "Zoë 🙂\u2028 x", "\u00a0", "y"]
    path = write_jsonl(tmp_path / "a.jsonl", [{"body": text, "n": 1} for text in texts])
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": texts, "n": [1, 2, 3, 4]}), table)
    for file in (path, table):
        assert read_local_rows(file, "body") == texts
        assert [d.text for d in read_local_documents(file, text_field="body")] == texts


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.txt", b"", "empty"),
        ("a.jsonl", b"", "empty"),
        ("a.txt", b"fine\nnot fine \xff\xfe\n", "line 2 .*byte 14"),
        ("a.txt", "Zoë".encode("utf-16"), "UTF-8"),
        ("a.txt", b" \n\n \t\n", "no text"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "line 2.*UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "line 2 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n["x"]\n', "line 2 is not a JSON object"),
        ("a.jsonl", b'{"title": "x", "answer": "y"}\n', "'title', 'answer'"),
        ("a.jsonl", b'{"text": 5}\n', "holds int"),
        ("a.jsonl", b'{"text": "  "}\n{"text": null}\n', "no text"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "line 1 is not JSON"),
        ("a.jsonl", b'{"text": ' + b"9" * 10_000 + b"}\n", "line 1"),
        ("a.parquet", b"PAR1 this is not a table PAR1", "Parquet"),
        ("a.xlsx", b"text\nx\n", "accepted: .txt, .md, .csv"),
    ],
)
def test_unusable_files_are_refused_in_one_sentence(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=named) as caught:
        read_local_documents(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_local_documents(tmp_path / "none.txt")
    with pytest.raises(DataError, match="nothing in it is read"):
        read_local_documents(tmp_path)
    with pytest.raises(DataError):
        read_local_documents(Path("x" * 10_000 + ".txt"))
    with pytest.raises(DataError):
        read_local_documents(Path("a\0b.txt"))


def test_parquet_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"title": ["x"], "answer": ["y"], "size": [3]}), path)
    with pytest.raises(DataError, match="'title', 'answer', 'size'"):
        read_local_documents(path)
    with pytest.raises(DataError, match="holds int"):
        read_local_documents(path, text_field="size")


def test_a_file_is_a_corpus(tmp_path: Path, cache: Path) -> None:
    path = write_jsonl(tmp_path / "my letters (2).jsonl", [{"text": text} for text in TEXTS])
    assert read_corpus_info(find_corpus(str(path))) is None
    corpus = load_corpus(str(path), max_train_bytes=1000)
    assert corpus.name == f"my_letters_2-{corpus.revision[:8]}"
    assert sorted(d.text for kept in corpus.splits.values() for d in kept) == sorted(TEXTS)
    assert read_corpus_info(find_corpus(str(path))) == corpus.info
    path.write_text(path.read_text().replace("number 3 ", "number three "), encoding="utf-8")
    assert load_corpus(str(path), max_train_bytes=1000).revision != corpus.revision


def test_the_field_belongs_to_the_revision(tmp_path: Path, cache: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": text, "other": text[::-1]} for text in TEXTS])
    one = load_corpus(str(path), max_train_bytes=None)
    other = load_corpus(str(path), max_train_bytes=None, text_field="other")
    assert one.revision != other.revision
    assert {d.text[::-1] for d in other.splits["train"]} <= set(TEXTS)


def test_one_long_text_is_cut_without_losing_a_character(tmp_path: Path, cache: Path) -> None:
    text = " ".join(f"This is sentence {number}, and it goes on." for number in range(2000))
    pieces = cut_into_pieces([text])
    assert "".join(pieces) == text
    assert all(500 < len(piece) < 4000 for piece in pieces)
    assert all(piece.rstrip().endswith("on.") for piece in pieces)
    path = tmp_path / "book.txt"
    path.write_text(text, encoding="utf-8")
    corpus = load_corpus(str(path), max_train_bytes=None)
    assert "cut into" in str(corpus.info.notes)
    assert sum(corpus.info.num_bytes.values()) == len(text)


@pytest.mark.parametrize(
    "num_bytes", [1_000_000, pytest.param(50_000_000, marks=[pytest.mark.slow, pytest.mark.alone])]
)
def test_a_single_long_line_works_in_bounded_time(tmp_path: Path, num_bytes: int) -> None:
    started = time.perf_counter()
    for content in ("word " * (num_bytes // 5), "x" * num_bytes):
        path = tmp_path / "long.txt"
        path.write_text(content, encoding="utf-8")
        (document,) = read_local_documents(path)
        assert document.num_bytes == num_bytes
        assert "".join(cut_into_pieces([content])) == content
    assert time.perf_counter() - started < 30


def test_too_small_a_file_is_refused_with_the_number_needed(tmp_path: Path, cache: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "x"}, {"text": "y"}])
    with pytest.raises(DataError, match="at least 10"):
        load_corpus(str(path), max_train_bytes=None)


def test_documents_of_one_byte(tmp_path: Path, cache: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": letter} for letter in "abcdefghijklmnopqrstuvwxyz"])
    corpus = load_corpus(str(path), max_train_bytes=None)
    assert sum(corpus.info.num_bytes.values()) == 26


def test_a_file_can_stand_in_a_catalogue(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(json.dumps({"body": f"note {n} on {n * n}"}) + "\n" for n in range(40)), encoding="utf-8")
    fields = {"source": "file", "path": str(path), "text_field": "body", "licence": "ours"}
    entry = read_entries(yaml.safe_dump({"notes": fields}), SOURCES, "lorabench.yaml")["notes"]
    by_name = load_prepared(entry, max_train_bytes=None)
    by_path = load_corpus(str(path), max_train_bytes=None, text_field="body")
    assert (by_name.name, by_name.info.licence) == ("notes", "ours")
    assert by_name.revision == by_path.revision
    assert by_name.splits == by_path.splits
    assert sum(map(len, by_name.splits.values())) == 40
