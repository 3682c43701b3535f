"""The whole of `lorabench run` over the local hub: three families, two corpora, and a token that shows nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.conftest import GOOD_TOKEN
from tests.hub.server import LocalHub

EXPERIMENT = """
name: over_the_hub
models: [gpt2, pythia-410m, gemma-2b]
datasets: [pile-10k, wikitext-103]
adapter: {rank: 4}
training: {learning_rate: 1.0e-3, batch_size: 4, context_length: 32, train_bytes: 3_000, precision: fp32}
evaluation: {validation_bytes: 1_000, test_bytes: 1_000, times: 1, samples: 0}
seeds: [0]
"""


@pytest.mark.slow
def test_run_from_the_hub(hub_with_models: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    places = {"HF_HOME": str(tmp_path / "hf"), "LORABENCH_CACHE": str(tmp_path / "cache"), "WANDB_MODE": "disabled"}
    finished = subprocess.run(
        [sys.executable, "-m", "lorabench", "run", "experiment.yaml"],
        cwd=tmp_path,
        env=os.environ | {"HF_ENDPOINT": hub_with_models.url, "HF_TOKEN": GOOD_TOKEN, "HF_HUB_OFFLINE": "0"} | places,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    records = [json.loads(path.read_text()) for path in (tmp_path / "outputs").rglob("record.json")]
    assert len(records) == 6
    commits = {repository.commit("main") for repository in hub_with_models.repositories.values()}
    for path in (tmp_path / "outputs").rglob("adapter_config.json"):
        base = json.loads(path.read_text())
        assert base["revision"] in commits
        assert base["base_model_name_or_path"] in {"openai-community/gpt2", "EleutherAI/pythia-410m", "google/gemma-2b"}
        assert (path.parent / "tokenizer.json").is_file()
    for record in records:
        assert record["status"] == "completed"
        assert any("the hub's files are not what the catalogue says" in note for note in record["notes"])
        text = json.dumps(record)
        assert sum(commit in text for commit in commits) >= 2, "the commits that were read are not in the record"
        for kind in ("model", "dataset"):
            assert not record[kind]["pinned"]
            facts = record[kind]
            assert any(f"{kind} {facts['name']} is not pinned" in note for note in record["notes"])
    flattered = {
        (record["model"]["name"], record["dataset"]["name"])
        for record in records
        if any("its scores there flatter it" in note for note in record["notes"])
    }
    assert flattered == {("pythia-410m", "pile-10k")}
    for path in [*(tmp_path / "outputs").rglob("*"), *(tmp_path / "cache").rglob("*"), *(tmp_path / "hf").rglob("*")]:
        if path.is_file():
            assert GOOD_TOKEN.encode() not in path.read_bytes(), path
    assert GOOD_TOKEN not in finished.stdout + finished.stderr
