"""The page on bringing one's own text: each of its examples is planned."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lorabench.corpora.planning import plan_dataset
from lorabench.corpora.references import parts_of
from lorabench.experiment.schema import load_experiment

PAGE = Path(__file__).parents[2] / "docs" / "bring_your_text.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
EVERY = [" ".join(str((number * 7919 + k * 104729) % 9973) + "th" for k in range(30)) for number in range(100)]
TEXTS = EVERY[:60]


def write_files(folder: Path) -> None:
    import datasets

    rows = [{"text": text} for text in TEXTS]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    plain = "\n\n".join(TEXTS).encode()
    table = pa.table({"text": EVERY[80:]})
    csv = ("text\n" + "\n".join(EVERY[60:80])).encode()
    posts = [{"title": text[:20], "body": text, "meta": {"summary": text[20:]}} for text in TEXTS]
    pairs = [(text[:40], text[40:]) for text in TEXTS]
    conversations = {
        "chat": [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in pairs],
        "sharegpt": [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a in pairs],
        "pairs": [{"prompt": q, "completion": a} for q, a in pairs],
        "alpaca": [{"instruction": q, "input": "", "output": a} for q, a in pairs],
        "qa": [{"question": q, "answer": a} for q, a in pairs],
    }
    for name, found in conversations.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    contents = {
        "notes.txt": plain,
        "notes.md": plain,
        "tickets.jsonl": lines,
        "tickets.ndjson": lines,
        "tickets.json": json.dumps(rows, indent=1).encode(),
        "tickets.csv": csv,
        "tickets.tsv": csv,
        "notes.txt.gz": gzip.compress(plain),
        "tickets.jsonl.gz": gzip.compress(lines),
        "tickets.csv.zst": pa.Codec("zstd").compress(csv, asbytes=True),
        "posts.jsonl": "".join(json.dumps(post) + "\n" for post in posts).encode(),
        "many/a.jsonl": b"".join(lines.splitlines(keepends=True)[:30]),
        "many/b.jsonl": b"".join(lines.splitlines(keepends=True)[30:]) + b'"One more."\n',
    }
    (folder / "many").mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    pq.write_table(table, folder / "tickets.parquet")
    with pa.ipc.new_file(folder / "tickets.arrow", table.schema) as writer:
        writer.write_table(table)
    datasets.Dataset.from_list(rows).save_to_disk(str(folder / "saved"))


def test_every_example_is_planned(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    write_files(folder)
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 10
    for block in BLOCKS:
        values = {"name": "x", "models": ["gpt2"], **yaml.safe_load(block)}
        (folder / "x.yaml").write_text(yaml.safe_dump(values))
        for reference in load_experiment(folder / "x.yaml").datasets:
            if parts_of(reference).is_hub_id:
                assert "From the hub" in PAGE.read_text().split(block)[0]
                continue
            plan = plan_dataset(reference, "text", 10_000)
            assert plan.num_bytes["train"] > 0, reference
