"""What `lorabench export` writes is loaded by the programs that it is written for, and says what was measured."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import lorabench
from lorabench.core.errors import DiskError, InputError
from lorabench.deploy.engine import Source
from lorabench.deploy.engines.transformers import ENGINE, REFERENCE
from lorabench.deploy.export import export_run
from lorabench.records.schema import RunRecord
from lorabench.records.store import load_records
from lorabench.runs.view import RunView
from tests.runs.conftest import ExperimentWriter

IDS = torch.arange(24)[None] % 200


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(IDS).logits
    return found.float()


def adapted_by_peft(record: RunRecord, out: Path) -> torch.nn.Module:
    """The run as plain PEFT loads it from where the run left it."""
    base = AutoModelForCausalLM.from_pretrained(record.references["model"], dtype=torch.float32)
    return PeftModel.from_pretrained(base, str(out / "runs" / record.run_id / "adapter"))


def test_the_adapter_loads_in_peft(finished: RunRecord, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    exported = export_run(finished.run_id, tmp_path / "out", form="adapter", to=folder, view=RunView())
    base = AutoModelForCausalLM.from_pretrained(finished.references["model"], dtype=torch.float32)
    assert torch.equal(
        logits(PeftModel.from_pretrained(base, str(folder))), logits(adapted_by_peft(finished, tmp_path / "out"))
    )
    AutoTokenizer.from_pretrained(folder)
    assert set(exported.files) >= {"adapter_model.safetensors", "README.md", "SHA256SUMS"}
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_the_merged_model_loads_in_transformers(finished: RunRecord, tmp_path: Path) -> None:
    wanted = logits(adapted_by_peft(finished, tmp_path / "out"))
    for form, dtype, tolerance in [("merged:fp32", torch.float32, 1e-4), ("merged", torch.bfloat16, 0.2)]:
        folder = tmp_path / form
        export_run(finished.run_id, tmp_path / "out", form=form, to=folder, view=RunView())
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        assert model.dtype == dtype
        torch.testing.assert_close(logits(model), wanted, rtol=0.0, atol=tolerance)
        assert AutoTokenizer.from_pretrained(folder)("river stone")["input_ids"]


def test_the_gguf_file_holds_the_merged_model(finished: RunRecord, tmp_path: Path) -> None:
    folder = tmp_path / "gguf"
    export_run(finished.run_id, tmp_path / "out", form="gguf:F32", to=folder, view=RunView())
    (file,) = folder.glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
    wanted = logits(adapted_by_peft(finished, tmp_path / "out"))
    torch.testing.assert_close(logits(model), wanted, rtol=0.0, atol=1e-4)
    assert (folder / "Modelfile").read_text().startswith(f"FROM ./{file.name}\n")
    card = (folder / "README.md").read_text()
    assert "this form was not measured" in card
    assert "model-index" not in card
    assert not [path for path in folder.iterdir() if path.name.startswith(".merged")]


@pytest.mark.slow
def test_the_card_says_what_was_measured(finished: RunRecord, tmp_path: Path) -> None:
    export_run(finished.run_id, tmp_path / "out", form="adapter", to=tmp_path / "exported", view=RunView())
    card = ModelCard.load(tmp_path / "exported" / "README.md")
    results = {(item.dataset_split, item.metric_type): item.metric_value for item in card.data.eval_results}
    assert finished.validation is not None
    assert results["validation", "bits_per_byte"] == pytest.approx(finished.validation.bits_per_byte, abs=1e-6)
    assert ("test", "perplexity") in results
    text = card.text
    assert f"{finished.validation.bits_per_byte:.4f}" in text
    assert finished.files["adapter/adapter_model.safetensors"] in text
    code = text.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "exported", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_written_over(finished: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="something lies there already"):
        export_run(finished.run_id, tmp_path / "out", form="adapter", to=tmp_path / "there", view=RunView())
    assert (tmp_path / "there" / "letter.txt").read_text() == "mine"


def test_a_damaged_adapter_is_not_taken_away(finished: RunRecord, tmp_path: Path) -> None:
    path = tmp_path / "out" / "runs" / finished.run_id / "adapter" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DiskError, match=r"adapter_model\.safetensors"):
        export_run(finished.run_id, tmp_path / "out", form="merged", to=tmp_path / "exported", view=RunView())
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("onyx", "there is no form 'onyx'; accepted: adapter, gguf, gguf_adapter, merged"),
        ("gguf", "gguf alone is not accepted; accepted: gguf:F32"),
        ("gguf:Q9", "gguf:Q9 is not accepted"),
        ("gguf_adapter:Q9", "gguf_adapter:Q9 is not accepted; accepted: gguf_adapter:F32"),
        ("merged:int3", "accepted: merged"),
        ("adapter:x", "accepted: adapter, adapter:nf4"),
    ],
)
def test_unknown_forms_are_named(form: str, reason: str, finished: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        export_run(finished.run_id, tmp_path / "out", form=form, to=tmp_path / "exported", view=RunView())


def test_a_model_that_was_trained_as_a_whole(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path = experiment(adapter={"method": "full"})
    lorabench.run(path, tmp_path / "out", trackers=["none"])
    (record,) = load_records(tmp_path / "out")
    with pytest.raises(InputError, match="every weight was trained"):
        export_run(record.run_id, tmp_path / "out", form="adapter", to=tmp_path / "adapter", view=RunView())
    export_run(record.run_id, tmp_path / "out", form="merged:fp32", to=tmp_path / "merged", view=RunView())
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    base = AutoModelForCausalLM.from_pretrained(record.references["model"], dtype=torch.float32)
    assert not torch.allclose(logits(merged), logits(base), atol=1e-2)
    reference = Source(
        form=REFERENCE,
        engine="transformers",
        folder=tmp_path / "out" / "runs" / record.run_id / "adapter",
        base_folder=Path(record.references["model"]),
        context_length=32,
        threads=1,
    )
    found = torch.from_numpy(ENGINE.scorer(reference).logits(IDS[0].tolist()))
    torch.testing.assert_close(found, logits(merged)[0], rtol=0.0, atol=1e-4)
