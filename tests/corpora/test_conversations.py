from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lorabench.core.errors import ConfigError, DataError
from lorabench.corpora.budget import take_budget
from lorabench.corpora.conversations import find_format, read_turns
from lorabench.corpora.documents import Turn, make_conversation
from lorabench.corpora.drawing import draw
from lorabench.corpora.files import read_local_documents
from lorabench.corpora.references import build_reference
from lorabench.corpora.store import load_corpus

ASKED, ANSWERED = Turn("user", "Why?"), Turn("assistant", "So.", learned=True)
ROWS: list[tuple[str, dict[str, Any], list[Turn]]] = [
    (
        "chat",
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}], "id": 1},
        [ASKED, ANSWERED],
    ),
    (
        "chat",
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]},
                {"role": "assistant", "content": "So.", "weight": 0},
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "So.", "weight": 1, "tool_calls": None},
            ]
        },
        [Turn("system", "Be brief."), ASKED, Turn("assistant", "So."), ASKED, ANSWERED],
    ),
    (
        "sharegpt",
        {
            "system": "Be brief.",
            "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}],
        },
        [Turn("system", "Be brief."), ASKED, ANSWERED],
    ),
    (
        "prompt-completion",
        {"prompt": "Why?", "completion": " So."},
        [Turn("prompt", "Why?"), Turn("completion", " So.", learned=True)],
    ),
    (
        "prompt-completion",
        {
            "prompt": [{"role": "assistant", "content": "Ask."}, {"role": "user", "content": "Why?"}],
            "completion": [{"role": "assistant", "content": "So."}],
        },
        [Turn("assistant", "Ask."), ASKED, ANSWERED],
    ),
    ("alpaca", {"instruction": "Why?", "input": "", "output": "So."}, [ASKED, ANSWERED]),
    (
        "alpaca",
        {"instruction": "Add.", "input": "1, 2", "output": "3", "history": [["Why?", "So."]]},
        [ASKED, ANSWERED, Turn("user", "Add.\n\n1, 2"), Turn("assistant", "3", learned=True)],
    ),
    ("question-answer", {"question": "Why?", "answer": "So.", "id": 1}, [ASKED, ANSWERED]),
    (
        "question-answer",
        {"context": "Rain.", "question": "Why?", "answer": "So."},
        [Turn("user", "Rain.\n\nWhy?"), ANSWERED],
    ),
]


@pytest.mark.parametrize(("format", "row", "turns"), ROWS)
def test_rows_are_found_and_read(format: str, row: dict[str, Any], turns: list[Turn]) -> None:
    found = find_format(row)
    assert found == format
    assert list(read_turns(row, found)) == turns


def test_the_text_field_decides_first() -> None:
    row = {"text": "", "instruction": "", "output": ""}
    assert find_format(row) == "text"
    assert find_format(row, "body") == "alpaca"
    assert find_format({"title": ""}) is None


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"messages": "Why?"}, "messages should be a list of messages, got str"),
        ({"messages": [{"role": "judge", "content": ""}]}, r"messages\[0\]: the role 'judge' is not known"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "a part of type 'image'; only text is read"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, r"messages\[0\] calls a tool"),
        ({"prompt": "a", "completion": []}, "should both be texts, or both lists"),
        ({"prompt": "a", "completion": 3}, "completion holds int; prompt and completion should both be texts"),
        ({"prompt": "a", "completion": None}, "completion holds nothing"),
        ({"instruction": 1, "output": "a"}, "instruction holds int, not text"),
        ({"question": "a", "answer": ["b"]}, "answer holds list, not text"),
        ({"prompt": "a"}, "it has no field 'messages', which chat needs; it has 'prompt'"),
    ],
)
def test_what_is_no_such_row_is_refused(row: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_turns(row, find_format(row) or "chat")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def some_rows(count: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "system", "content": "You are a helpful assistant who answers each question with one number."},
                {"role": "user", "content": f"What follows {number} when one counts by {number % 7 + 1}?"},
                {"role": "assistant", "content": f"After {number} comes {number + number % 7 + 1}."},
            ]
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_corpus_of_conversations_is_prepared_and_kept(suffix: str, tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / f"chat{suffix}", some_rows())
    made, kept = (load_corpus(str(path), max_train_bytes=None) for _ in range(2))
    assert made == kept
    assert made.info.format == "chat"
    documents = [document for split in made.splits.values() for document in split]
    assert len(documents) == 60, "a system prompt that all share makes no near copies"
    assert all(len(document.turns or ()) == 3 for document in documents)
    assert len({document.hash for document in documents}) == 60


def test_rows_without_an_answer_are_counted_as_empty(tmp_path: Path, cache: Path) -> None:
    rows = [*some_rows(), {"messages": [{"role": "user", "content": "Anybody?"}]}]
    corpus = load_corpus(str(write(tmp_path / "chat.jsonl", rows)), max_train_bytes=None)
    assert corpus.info.removed["empty"] == 1


def test_a_file_is_scored_as_it_is_in_a_format_that_is_given(tmp_path: Path) -> None:
    rows = [{"text": "Why? So.", "prompt": "Why?", "completion": " So."}]
    path = write(tmp_path / "pairs.jsonl", rows)
    assert read_local_documents(path)[0].turns is None
    (document,) = read_local_documents(path, format="continuation")
    assert (document.answers, document.scored_bytes) == (["So."], 3)
    with pytest.raises(DataError, match=r"pairs.jsonl: line 1: it has no field 'messages', which chat needs"):
        read_local_documents(path, format="chat")


def test_format_is_part_of_a_reference() -> None:
    assert build_reference({"path": "a.jsonl", "format": "alpaca"}, "datasets").format == "alpaca"
    with pytest.raises(ConfigError, match="'vicuna' is not accepted"):
        build_reference({"path": "a.jsonl", "format": "vicuna"}, "datasets")
    with pytest.raises(ConfigError, match="the catalogue says what the rows of news are"):
        build_reference({"name": "news", "format": "alpaca"}, "datasets")


def test_conversations_are_never_cut() -> None:
    documents = [
        make_conversation([Turn("user", "word " * 2000), Turn("assistant", f"{number}", learned=True)])
        for number in range(8)
    ]
    size = documents[0].num_bytes
    drawn = draw(documents, 3 * size).pieces
    assert drawn
    assert set(drawn) <= set(documents)
    assert len(draw(documents, 10).pieces) == len(take_budget(documents, 10)) == 1
