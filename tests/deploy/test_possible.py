"""What cannot be made of a run is said before any work, with the reason: every form, every family."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from lorabench.core.errors import InputError, LorabenchError, ModelError
from lorabench.deploy.deployment import deploy_run
from lorabench.deploy.engine import ENGINES
from lorabench.deploy.export import export_run
from lorabench.deploy.form import make_form
from lorabench.deploy.gguf.llama import QUANTISED
from lorabench.deploy.subject import Subject
from lorabench.deploy.wanted import DEFAULT_FORMS, default_forms, not_installed
from lorabench.records.schema import RunRecord
from lorabench.runs.view import RunView
from tests.deploy.conftest import CONFIGURATIONS, WITHOUT_GGUF, ModelMaker

FORMS = (
    *DEFAULT_FORMS,
    *("merged:nf4-double", "adapter:nf4-double", "gguf:F16", "gguf:F32", "gguf:IQ4_NL", "gguf_adapter:BF16"),
    *(f"gguf:{kind}-plain" for kind in QUANTISED),
    *(f"gguf_adapter:{kind}" for kind in QUANTISED),
)

OF_GPT2 = tuple(name for name in FORMS if not name.startswith("onnx"))
"""What can be made of the finished run, which adapted a GPT-2."""


@pytest.fixture
def subject(finished: RunRecord, tmp_path: Path) -> Subject:
    return Subject.of(finished.run_id, tmp_path / "out")


def refusals(subject: Subject, forms: Sequence[str] = FORMS) -> dict[str, str]:
    """By form; those that can be made are not among them."""
    found = {}
    for name in forms:
        try:
            make_form(name).check(subject)
        except LorabenchError as problem:
            found[name] = str(problem)
    return found


@pytest.mark.parametrize("family", sorted(CONFIGURATIONS | WITHOUT_GGUF))
def test_families(family: str, subject: Subject, random_model: ModelMaker) -> None:
    there = dataclasses.replace(subject, location=dataclasses.replace(subject.location, folder=random_model(family)))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(random_model(family) / name, subject.adapter / name)
    kinds = ("gguf",) * (family in WITHOUT_GGUF) + ("onnx",) * (family not in ("mistral", "qwen3", "gemma"))
    found = refusals(there)
    assert set(found) == {name for name in FORMS if name.startswith(kinds)}
    reasons = {
        "gguf": f"no GGUF file is written for models of type {family}; accepted: gpt2",
        "onnx": "ONNX Runtime",
    }
    assert all(reasons[name[:4]] in why for name, why in found.items())


def change_configuration(subject: Subject, **values: object) -> None:
    path = subject.adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_adapters_that_are_more_than_two_factors(subject: Subject) -> None:
    path = subject.adapter / "adapter_model.safetensors"
    weights = load_file(path)
    first = next(name for name in weights if name.endswith("lora_A.weight"))
    name = first.replace("lora_A.weight", "lora_magnitude_vector")
    save_file(weights | {name: weights[first][0]}, path)
    found = refusals(subject, OF_GPT2)
    assert set(found) == {name for name in FORMS if name.startswith("gguf_adapter")}
    assert all("no place for the adapter's base_model" in why for why in found.values())


def test_adapters_before_the_text(subject: Subject) -> None:
    change_configuration(subject, peft_type="PREFIX_TUNING", num_virtual_tokens=4)
    found = refusals(subject)
    assert set(found) == {name for name in FORMS if not name.startswith("adapter")}
    assert "PREFIX_TUNING stands before the text" in found["merged:bf16"]
    assert "llama.cpp reads LoRA alone" in found["gguf_adapter:Q4_K_M"]


def test_models_that_were_trained_as_a_whole(subject: Subject) -> None:
    (subject.adapter / "adapter_config.json").unlink()
    found = refusals(subject, OF_GPT2)
    assert set(found) == {name for name in FORMS if name.startswith(("adapter", "gguf_adapter"))}
    assert all("every weight was trained" in why for why in found.values())


def test_a_form_that_was_asked_for_ends_it_before_anything_is_made(
    finished: RunRecord, tmp_path: Path, random_model: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Subject.of(finished.run_id, tmp_path / "out")
    there = dataclasses.replace(found, location=dataclasses.replace(found.location, folder=random_model("olmo2")))
    monkeypatch.setattr(Subject, "of", lambda *given: there)
    monkeypatch.setattr("lorabench.deploy.engines.llama.LlamaEngine.require", lambda engine: None)
    with pytest.raises(ModelError, match="models of type olmo2"):
        deploy_run(finished.run_id, tmp_path / "out", forms=["merged", "gguf:Q8_0"], view=RunView())
    with pytest.raises(ModelError, match="models of type olmo2"):
        export_run(finished.run_id, tmp_path / "out", form="gguf:Q8_0", to=tmp_path / "exported", view=RunView())
    assert not (tmp_path / "out" / "deployments").exists()
    assert not (tmp_path / "exported").exists()


def test_what_no_program_accepts_is_named() -> None:
    for name in ("adapter:nf5", "merged:nf5", "gguf:Q4_K", "gguf_adapter:Q4_K"):
        with pytest.raises(InputError, match=f"form: {name} is not accepted; accepted: "):
            make_form(name)


def test_what_is_slow_on_a_processor_is_measured_only_when_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorabench.deploy.engines.bitsandbytes.BitsandbytesEngine.require", lambda engine: None)
    monkeypatch.setattr("lorabench.deploy.engines.llama.LlamaEngine.check_device", lambda engine, device: None)
    slow = {"merged:nf4", "adapter:nf4", "merged:int8", "adapter:int8"}
    for has_units in (True, False):
        monkeypatch.setattr("lorabench.deploy.wanted.processor_has_bf16", lambda has_units=has_units: has_units)
        assert (slow <= set(default_forms("cpu"))) is has_units
        told = [sentence for sentence in not_installed((), "cpu") if "are left out" in sentence]
        assert len(told) == (not has_units)
        assert all(sentence.startswith("merged:nf4, adapter:nf4, merged:int8, adapter:int8 ") for sentence in told)
    assert slow <= set(default_forms("cuda"))
    assert not any("left out" in sentence for sentence in not_installed(["merged:nf4"], "cpu"))


def test_a_device_that_is_not_there_or_not_for_a_form(finished: RunRecord, tmp_path: Path) -> None:
    asked = {"device": "cuda", "view": RunView()}
    with pytest.raises(InputError, match="cuda was asked for, but torch finds no GPU here"):
        deploy_run(finished.run_id, tmp_path / "out", forms=["merged"], **asked)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ONNX Runtime is installed for processors; give --device cpu"):
        ENGINES.get("onnx").check_device("cuda")
    assert not (tmp_path / "out" / "deployments").exists()
