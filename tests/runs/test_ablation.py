"""One of the shipped ablations, done at tiny size from its own file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

import lorabench
from lorabench.experiment.shipped import find_shipped
from lorabench.records.store import load_records
from tests.runs.conftest import write_corpus


def wider(folder: Path, target: Path) -> Path:
    """The same kind of model with room for rank 16 in its narrowest layer."""
    shutil.copytree(folder, target)
    config = AutoConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size, config.head_dim = 64, 96, 16
    config.num_attention_heads, config.num_key_value_heads = 4, 2
    AutoModelForCausalLM.from_config(config).float().save_pretrained(target)
    return target


@pytest.mark.slow
def test_methods_are_compared_each_at_its_best_rate(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "words.jsonl")
    model = wider(tiny_model("smollm2"), tmp_path / "model")
    changes = [
        *(f"models=[{model}]", f"datasets=[{corpus}]", "seeds=[0]", "training.precision=fp32"),
        *("training.batch_size=4", "training.context_length=32", "training.train_bytes=3000"),
        "evaluation={validation_bytes: 1200, test_bytes: 1200, times: 1, samples: 0}",
    ]
    out = tmp_path / "out"
    outcome = lorabench.run(find_shipped("methods"), out, overrides=changes, trackers=["none"])
    assert outcome.exit_code == 0
    rates: dict[str, set[float]] = {}
    for record in load_records(out):
        assert record.adapter is not None
        rates.setdefault(record.spec.adapter.method, set()).add(record.spec.training.learning_rate)
    assert {method: len(found) for method, found in rates.items()} == dict.fromkeys(rates, 3)
    assert len(rates) == 8
    summary = (out / "results" / "results_summary.md").read_text()
    assert "**Method: " in summary
