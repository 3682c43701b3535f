"""Folders for ONNX Runtime: what is in them, their scores and what they write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lorabench.core.errors import ModelError
from lorabench.deploy.engine import ENGINES, Source, write_greedily
from lorabench.deploy.form import make_form
from lorabench.deploy.forms.onnx import OnnxForm, _build, require_buildable
from tests.deploy.conftest import ModelMaker
from tests.deploy.test_export import IDS

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gpt2", "of GPT2LMHeadModel; accepted: GemmaForCausalLM, LlamaForCausalLM, "),
        ("pythia", "of GPTNeoXForCausalLM; accepted: "),
        ("gemma3", "of Gemma3ForCausalLM; accepted: "),
        ("qwen2", "a multiple of 16; these have 8"),
    ],
)
def test_what_cannot_be_built_is_said_before_the_work(family: str, reason: str, random_model: ModelMaker) -> None:
    with pytest.raises(ModelError, match=reason):
        require_buildable(random_model(family))


def test_a_model_whose_attention_looks_at_windows_is_refused(random_model: ModelMaker, tmp_path: Path) -> None:
    config = json.loads((random_model("mistral") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"sliding_window": 16}))
    with pytest.raises(ModelError, match="looks at windows"):
        require_buildable(tmp_path)


@pytest.mark.parametrize(
    ("family", "kind"), [("mistral", "int8"), ("mistral", "int4"), ("qwen3", "int8"), ("gemma", "int4")]
)
def test_a_built_folder_scores_and_writes_as_the_model_does(
    family: str, kind: str, random_model: ModelMaker, tmp_path: Path
) -> None:
    model = random_model(family)
    folder = tmp_path / "built"
    form = make_form(f"onnx:{kind}")
    assert isinstance(form, OnnxForm)
    require_buildable(model)
    _build(model, form.kind, folder, tmp_path / "cache")
    engine = ENGINES.get("onnx")
    source = Source(form=f"onnx:{kind}", engine="onnx", folder=folder, base_folder=model, context_length=32, threads=1)
    scorer = engine.scorer(source)
    ids = IDS[0].tolist()
    with torch.inference_mode():
        wide = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(input_ids=IDS[:1]).logits[0].numpy()
    apart = float(np.abs(scorer.logits(ids) - wide).mean() / np.abs(wide).mean())
    assert 0.0 < apart < {"int8": 0.05, "int4": 0.5}[kind], apart
    written = write_greedily(engine.runtime(source), ids, max_new_tokens=6, end_ids=())
    for place, token in enumerate(written):
        assert token == int(scorer.logits([*ids, *written[:place]])[-1].argmax())
    runtime = engine.runtime(source)
    runtime.prefill(ids, 3)
    assert runtime.latest == written[:1] * 3
    runtime.step()
    assert runtime.latest == written[1:2] * 3
