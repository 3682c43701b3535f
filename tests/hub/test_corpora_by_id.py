"""Corpora of the hub by their id, over HTTP: splits, fields and the format of conversations are found or given."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lorabench.corpora.catalog import get_dataset
from lorabench.models.catalog import was_trained_on
from tests.hub import corpora
from tests.hub.conftest import Worker
from tests.hub.server import HubRepository, LocalHub

QUESTIONS = corpora.texts("questions", 60, 20)
ANSWERS = corpora.texts("answers", 60, 30)
PAIRS = list(zip(QUESTIONS, ANSWERS, strict=True))


def messages(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


ROWS: dict[str, list[dict[str, Any]]] = {
    "chat": [{"id": str(place), "messages": messages(*pair)} for place, pair in enumerate(PAIRS)],
    "sharegpt": [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a in PAIRS],
    "prompt-completion": [{"prompt": q, "completion": a} for q, a in PAIRS],
    "alpaca": [{"instruction": q, "input": "", "output": a} for q, a in PAIRS],
}


def table(rows: Sequence[dict[str, Any]]) -> bytes:
    return corpora.parquet({name: [row[name] for row in rows] for name in rows[0]})


def lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def add(hub: LocalHub, name: str, files: dict[str, bytes], front: str = "license: mit") -> str:
    hub.add(HubRepository("dataset", name, {"main": {**files, "README.md": corpora.card(front, name)}}))
    return name


def test_a_repository_is_read_by_its_id(worker: Worker, hub: LocalHub) -> None:
    read = worker.ok("corpus", name="roneneldan/TinyStories", max_train_bytes=None)
    commit = hub.repositories["dataset", "roneneldan/TinyStories"].commit("main")
    assert read["info"]["name"] == "roneneldan_TinyStories"
    assert read["revision"].startswith(commit)
    assert read["info"]["pinned"] is True
    train = {text for part in range(4) for text in corpora.texts(f"stories{part}", 40)}
    held_out = set(corpora.texts("stories-v", 30))
    assert set(read["splits"]["train"]) | set(read["splits"]["test"]) == train
    assert set(read["splits"]["validation"]) == held_out
    again = worker.ok("corpus", name=f"roneneldan/TinyStories@{commit}", max_train_bytes=None)
    assert again["info"] == read["info"]


def test_what_is_not_there_is_refused(worker: Worker) -> None:
    answer = worker("corpus", name="nobody/nothing", max_train_bytes=None)
    assert "there is no dataset nobody/nothing" in answer["error"]
    answer = worker("corpus", name="roneneldan/TinyStories@nowhere", max_train_bytes=None)
    assert "no revision nowhere" in answer["error"]
    answer = worker("corpus", name={"name": "roneneldan/TinyStories", "split": "gold"}, max_train_bytes=None)
    assert "has no split 'gold'; it has 'train', 'validation'" in answer["error"]


@pytest.mark.parametrize("format", sorted(ROWS))
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_conversations_are_found_from_their_fields(worker: Worker, hub: LocalHub, format: str, kind: str) -> None:
    content = (table if kind == "parquet" else lines)(ROWS[format])
    name = add(hub, f"us/{format}-{kind}", {f"data/train.{kind}": content})
    found = worker.ok("corpus", name=name, max_train_bytes=10_000)
    assert found["info"]["format"] == format
    answers = [answer for split in found["answers"].values() for (answer,) in split]
    assert sorted(answers) == sorted(ANSWERS)
    given = worker.ok("corpus", name={"name": name, "format": format}, max_train_bytes=10_000)
    assert given["answers"] == found["answers"]


def test_a_format_that_the_rows_do_not_have_is_refused(worker: Worker, hub: LocalHub) -> None:
    name = add(hub, "us/asked", {"train.jsonl": lines(ROWS["chat"])})
    answer = worker("corpus", name={"name": name, "format": "alpaca"}, max_train_bytes=10_000)
    assert "a row of us/asked: it has no field 'instruction', which alpaca needs" in answer["error"]
    odd = [{"messages": [{"role": "narrator", "content": "x"}]}]
    name = add(hub, "us/odd-role", {"train.jsonl": lines(odd)})
    answer = worker("corpus", name=name, max_train_bytes=10_000)
    assert "messages[0]: the role 'narrator' is not known" in answer["error"]


def test_messages_that_are_held_by_their_fields(worker: Worker, hub: LocalHub) -> None:
    front = "dataset_info:\n  features:\n  - name: messages\n    sequence:\n    - name: role\n      dtype: string\n"
    front += "    - name: content\n      dtype: string\n"
    name = add(hub, "us/by-fields", {"train.parquet": table([{"messages": row["messages"]} for row in ROWS["chat"]])})
    plain = worker.ok("corpus", name=name, max_train_bytes=10_000)
    columns = [
        {"messages": {key: [m[key] for m in row["messages"]] for key in ("role", "content")}} for row in ROWS["chat"]
    ]
    name = add(hub, "us/by-fields-2", {"train.parquet": table(columns)}, front)
    assert worker.ok("corpus", name=name, max_train_bytes=10_000)["answers"] == plain["answers"]


def test_splits_of_the_owner_are_kept_and_checked_for_leaks(worker: Worker, hub: LocalHub) -> None:
    rows = ROWS["chat"]
    files = {"data/train-0.parquet": table(rows[:50]), "data/validation-0.parquet": table(rows[40:55])}
    name = add(hub, "us/leaky", {**files, "data/test-0.parquet": table(rows[55:])})
    read = worker.ok("corpus", name=name, max_train_bytes=10_000)
    assert {split: len(found) for split, found in read["splits"].items()} == {"train": 40, "validation": 15, "test": 5}
    assert read["info"]["removed"]["exact_duplicates"] == 10
    one = worker.ok("corpus", name={"name": name, "split": "validation"}, max_train_bytes=10_000)
    assert sorted(answer for split in one["answers"].values() for (answer,) in split) == sorted(ANSWERS[40:55])
    assert one["revision"] != read["revision"]


def test_text_and_conversations_do_not_mix(worker: Worker, hub: LocalHub) -> None:
    texts = [{"text": answer} for answer in ANSWERS[:20]]
    name = add(hub, "us/mixed", {"data/train.jsonl": lines(ROWS["chat"])}, "license: mit")
    repository = hub.repositories["dataset", name].branches["main"]
    repository["data/validation.jsonl"] = lines(texts)
    answer = worker("corpus", name=name, max_train_bytes=10_000)
    assert "dataset us_mixed" in answer["error"]


def experiment(*datasets: Any, model: str = "gpt2") -> dict[str, Any]:
    training = {"context_length": 32, "batch_size": 2, "train_bytes": 3000, "precision": "fp32"}
    return {"name": "x", "models": [model], "datasets": [*datasets], "adapter": {"rank": 2}, "training": training}


def test_a_plan_names_the_format_that_the_card_says(start_worker: Callable[..., Worker], hub: LocalHub) -> None:
    front = "dataset_info:\n  features:\n  - name: prompt\n    dtype: string\n  - name: completion\n    dtype: string\n"
    name = add(hub, "us/told", {"train.parquet": table(ROWS["prompt-completion"])}, front)
    online = start_worker()
    before = len(hub.requests)
    planned = online.ok("plan", experiment=experiment(name))
    assert "us_told is conversations (prompt-completion)" in str(planned["warnings"])
    asked = [request.path for request in hub.requests[before:] if "us/told" in request.path]
    assert len(asked) == 1
    online.ok("corpus", name=name, max_train_bytes=3000)
    offline = start_worker(home=online.home, HF_HUB_OFFLINE="1")
    assert offline.ok("plan", experiment=experiment(name))["run_ids"] == planned["run_ids"]
    assert offline.ok("corpus", name=name, max_train_bytes=3000)["info"]["format"] == "prompt-completion"


def test_what_the_catalogue_knows_of_a_repository_holds_for_its_id(worker: Worker) -> None:
    stories = worker.ok("corpus", name="roneneldan/TinyStories", max_train_bytes=3000)["info"]
    assert stories["synthetic"] is True
    assert (stories["licence"], stories["domain"]) == ("CDLA-Sharing-1.0", "fiction")
    warnings = worker.ok("plan", experiment=experiment("NeelNanda/pile-10k", model="pythia-410m"))["warnings"]
    assert "pythia-410m was trained on NeelNanda_pile-10k: its scores there flatter it" in warnings


@pytest.mark.parametrize("model", ["EleutherAI/pythia-410m", "EleutherAI/pythia-410m@step1000", "pythia-410m-0123abcd"])
def test_a_hub_id_is_known_by_its_repository(model: str) -> None:
    contaminates = get_dataset("pile-10k").contaminates
    assert was_trained_on(model, contaminates)
    assert not was_trained_on("openai-community/gpt2", contaminates)
    assert not was_trained_on("somebody/pythia-410m", contaminates)
