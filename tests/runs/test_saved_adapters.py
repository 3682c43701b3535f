"""What a run leaves in its adapter folder: the modules, the hashes and the scores that its record claims."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import lorabench
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.records.schema import Status
from lorabench.records.store import RecordStore
from tests.marks import slow

ExperimentWriter = Callable[..., Path]
TRAINING = {"learning_rate": 0.02, "batch_size": 4, "context_length": 32, "train_bytes": 4000}
PART = {"gpt2": "attn.", "smollm2": "self_attn."}


@pytest.mark.parametrize(
    ("family", "method", "precision"),
    [
        slow("gpt2", "lora", "bf16"),
        slow("gpt2", "pissa", "fp32"),
        slow("gpt2", "lora", "fp32"),
        slow("gpt2", "pissa", "bf16"),
        slow("smollm2", "dora", "bf16"),
        slow("smollm2", "dora", "fp32"),
    ],
)
def test_record_and_files_say_the_same(
    experiment: ExperimentWriter,
    tiny_model: Callable[[str], Path],
    tmp_path: Path,
    family: str,
    method: str,
    precision: str,
) -> None:
    out = tmp_path / "out"
    path = experiment(
        family,
        adapter={"method": method, "rank": 2, "target_modules": "attention"},
        training={**TRAINING, "precision": precision},
    )
    (record,) = lorabench.run(path, out, trackers=["none"]).records
    assert record.status is Status.COMPLETED
    assert record.adapter is not None
    folder = out / "runs" / record.run_id / "adapter"

    model = AutoModelForCausalLM.from_pretrained(tiny_model(family))
    read = PeftModel.from_pretrained(model, folder).base_model.model
    adapted = [path for path, module in read.named_modules() if isinstance(module, LoraLayer)]
    assert list(record.adapter.module_paths) == adapted
    assert all(PART[family] in path for path in adapted)
    assert record.adapter.num_modules == len(adapted)
    (planned,) = make_plan(load_experiment(path)).runs
    assert set(planned.target_modules) == set(adapted)
    stored = sum(tensor.numel() for tensor in load_file(folder / "adapter_model.safetensors").values())
    assert stored == planned.trainable_parameters * (2 if method == "pissa" else 1)
    assert record.adapter.trainable_parameters == planned.trainable_parameters

    names = {path.name for path in folder.iterdir()}
    assert {f"adapter/{name}" for name in names} <= set(record.files)
    sizes = [(folder / name).stat().st_size for name in ("adapter_config.json", "adapter_model.safetensors")]
    assert record.adapter.adapter_bytes == sum(sizes)
    assert len(AutoTokenizer.from_pretrained(folder)) == len(AutoTokenizer.from_pretrained(tiny_model(family)))
    assert record.evaluations[-1].validation == record.validation

    command = [sys.executable, "-m", "lorabench", "score-test", record.run_id, "--again", "--output-dir", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    again = RecordStore(out).get(record.run_id)
    assert again.num_test_scorings == 2
    assert again.test == record.test
