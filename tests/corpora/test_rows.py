"""Every format of files, compressed or not, gives the same rows; what cannot be read is refused with its place."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from lorabench.core.errors import DataError
from lorabench.corpora.fields import find_field, read_text
from lorabench.corpora.files import read_local_rows
from lorabench.corpora.rows.draw import draw_rows
from lorabench.corpora.rows.gather import gather, gather_splits
from lorabench.corpora.rows.read import read_rows

TEXTS = [f'Row {number}, with "quotes", a\nline break; Zoë 🙂 \u2028 {"word " * number}end' for number in range(40)]
ROWS = [{"text": text, "id": number} for number, text in enumerate(TEXTS)]


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def written(write: Callable[[pa.Table, Any], None], columns: dict[str, Any] | None = None) -> bytes:
    sink = io.BytesIO()
    write(pa.table(columns or {"text": TEXTS, "id": list(range(40))}), sink)
    return sink.getvalue()


def stream(rows: pa.Table, sink: Any) -> None:
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=7)


def ipc(rows: pa.Table, sink: Any) -> None:
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=7)


FILES = {
    "a.jsonl": lines(ROWS),
    "a.ndjson": b"\xef\xbb\xbf" + lines(ROWS).replace(b"\n", b"\r\n"),
    "lines.json": b"\n" + lines(ROWS),
    "array.json": json.dumps(ROWS, indent=1).encode(),
    "array.jsonl": json.dumps(ROWS).encode() + b"\n",
    "pretty.jsonl": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "strings.jsonl": lines(TEXTS),
    "a.csv": table(ROWS, ","),
    "excel.csv": b"\xef\xbb\xbf" + table(ROWS, ";"),
    "a.tsv": table(ROWS, "\t"),
    "a.parquet": written(lambda rows, sink: pq.write_table(rows, sink, row_group_size=9)),
    "file.arrow": written(ipc),
    "stream.arrow": written(stream),
    "a.feather": written(feather.write_feather),
    "category.parquet": written(pq.write_table, {"text": pa.array(TEXTS).dictionary_encode()}),
    "large.parquet": written(pq.write_table, {"text": pa.array(TEXTS, pa.large_string())}),
    "view.arrow": written(ipc, {"text": pa.array(TEXTS, pa.string_view())}),
}


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_texts(tmp_path: Path, name: str, compression: str) -> None:
    path = tmp_path / (name + compression)
    content = FILES[name]
    if compression == ".gz":
        content = gzip.compress(content[:100]) + gzip.compress(content[100:])
    if compression == ".zst":
        codec = pa.Codec("zstd")
        content = codec.compress(content[:100], asbytes=True) + codec.compress(content[100:], asbytes=True)
    path.write_bytes(content)
    assert read_local_rows(path) == TEXTS


def test_text_files_are_divided_by_blank_lines_however_lines_end(tmp_path: Path) -> None:
    blocks = ["one\ntwo", "three", " four"]
    for end in ("\n", "\r"):
        path = tmp_path / "a.md"
        path.write_bytes(f"{end}{end}".join(block.replace("\n", end) for block in blocks).encode())
        assert read_local_rows(path) == blocks
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("\n\n".join(blocks).encode()))
    assert read_local_rows(path) == blocks


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.jsonl.gz", gzip.compress(lines(ROWS))[:-20], "no whole .gz file"),
        ("a.jsonl.gz", lines(ROWS), "no whole .gz file"),
        ("a.jsonl.zst", lines(ROWS), "no whole .zst file"),
        ("a.jsonl", lines(ROWS).decode().encode("utf-16"), "UTF-16, not UTF-8"),
        ("a.json", b'[{"text": "a"}, {"text": "b"}', "line 1 is not JSON.*array"),
        ("a.json", b'[{"text": "a"}\n {"text": "b"}]', "line 2 is not JSON.*array"),
        ("a.json", b'[{"text": "a"}]\n[{"text": "b"}]', "line 2: something follows the array"),
        ("a.json", b'{\n"text": "a"\n}\n{\n"text": oh\n}', "line 4 is not JSON"),
        ("a.json", b"[1, 2]", "not a JSON object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": NaN}\n', "line 2.*holds NaN"),
        ("a.csv", b'text,id\n"a",1\n"b,2\n', "line 3 cannot be read as a table"),
        ("a.csv", b"text,id\na,b,c\n", "line 2 has 3 cells"),
        ("a.csv", b"text,text\na,b\n", "names the column 'text' twice"),
        ("a.arrow", b"ARROW1 no", "not a whole Arrow file"),
        ("a.parquet", written(pq.write_table, {"text": [b"x"]}), "holds bytes"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=named) as caught:
        read_local_rows(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_cells_are_taken_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,note\r\n007,\r\n\r\nNA\r\n")
    assert [row for _, row in read_rows(path)] == [{"text": "007", "note": ""}, {"text": "NA", "note": None}]


def test_a_text_is_made_of_fields() -> None:
    row = {"title": "T", "meta": {"body": "B", "tags": ["x", "y"]}, "a.b": "dotted", "none": None, "n": 1}
    wanted: dict[Any, str] = {
        "title": "T",
        "meta.body": "B",
        "meta.tags": "x\n\ny",
        "a.b": "dotted",
        ("title", "none", "meta.body"): "T\n\nB",
        "# {title}\n{meta.body}{{}} {n}": "# T\nB{} 1",
        "none": "",
        "{none}!": "",
    }
    assert {fields: read_text(row, fields, "row 1") for fields in wanted} == wanted
    with pytest.raises(DataError, match=r"row 1 has no field 'meta\.text'; it has 'title', 'meta\.body'"):
        read_text(row, "meta.text", "row 1")
    with pytest.raises(DataError, match="'n' holds int"):
        read_text(row, ("title", "n"), "row 1")


def test_the_field_is_found_where_it_is_clear() -> None:
    assert find_field({"id": "12", "body": "words", "title": "T"}, "row") == "body"
    assert find_field({"id": 1, "question": "words"}, "row") == "question"
    assert find_field("words", "row") is None
    with pytest.raises(DataError, match="'question', 'answer'"):
        find_field({"question": "words", "answer": "words"}, "row")


def test_folders_globs_and_saved_datasets(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "many"
    (folder / "deep").mkdir(parents=True)
    for index in range(4):
        (folder / ("deep" if index else "") / f"{index}.jsonl").write_bytes(lines(ROWS[index * 10 : index * 10 + 10]))
    (folder / "README.md").write_text("about")
    (folder / ".hidden.jsonl").write_text("broken")
    assert read_local_rows(folder) == TEXTS
    assert sorted(read_local_rows(folder / "**" / "*.jsonl")) == sorted(TEXTS)
    assert read_local_rows(folder / "deep" / "[12].jsonl") == TEXTS[10:30]
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"), num_shards=3)
    assert read_local_rows(tmp_path / "saved") == TEXTS
    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "dev": datasets.Dataset.from_list(ROWS[:5])}
    )
    both.save_to_disk(str(tmp_path / "both"))
    assert sorted(gather_splits(tmp_path / "both")) == ["train", "validation"]
    (folder / "notes.txt").write_text("text")
    with pytest.raises(DataError, match="files of rows and files of text"):
        gather(folder)
    with pytest.raises(DataError, match="no file matches"):
        gather(tmp_path / "*.csv")


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet", "file.arrow"])
def test_rows_of_places_are_all_rows_once(tmp_path: Path, name: str) -> None:
    texts = [f"{number} " + "word " * (number % 50) + "end" for number in range(3000)]
    content = lines([{"text": text} for text in texts]) if name == "a.jsonl" else "\n\n".join(texts).encode()
    if name == "a.parquet":
        content = written(lambda rows, sink: pq.write_table(rows, sink, row_group_size=100), {"text": texts})
    if name == "file.arrow":
        content = written(ipc, {"text": texts})
    (tmp_path / name).write_bytes(content)
    rows, places = draw_rows([tmp_path / name], None, 10_000_000)
    found = [read_text(row, "text", where) for where, row in rows]
    assert sorted(found) == sorted(texts)
    assert "places spread evenly" in places
    first = [int(text.split()[0]) for text in found[:64]]
    assert max(first) > 2000
    assert min(first) < 500
