"""torchao's forms: what is refused here, and, where torchao is installed, which layers are quantised and how well."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lorabench.core.errors import InputError, MissingExtraError
from lorabench.deploy.deployment import deploy_run
from lorabench.deploy.engine import ENGINES, Source
from lorabench.deploy.form import make_form
from lorabench.records.schema import RunRecord
from lorabench.runs.view import RunView
from tests.deploy.conftest import ModelMaker
from tests.deploy.test_export import IDS


def test_it_is_for_gpus_and_said_before_anything_is_made(finished: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="torchao's forms are for GPUs; give --device cuda"):
        deploy_run(finished.run_id, tmp_path / "out", forms=["torchao:int8"], view=RunView())
    with pytest.raises(InputError, match="accepted: torchao:int8, torchao:int4, torchao:fp8"):
        make_form("torchao:int2")
    assert not (tmp_path / "out" / "deployments").exists()


def test_without_it_the_command_that_installs_it_is_said(
    finished: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorabench.core.errors.find_spec", lambda name: None)
    with pytest.raises(InputError, match="for GPUs"):  # before it is told what to install for nothing
        deploy_run(finished.run_id, tmp_path / "out", forms=["torchao:fp8"], view=RunView())
    with pytest.raises(MissingExtraError, match=r"pip install 'lorabench\[torchao\]'"):
        ENGINES.get("torchao").require()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_linear_layers_are_quantised_and_nothing_else(kind: str, random_model: ModelMaker, tmp_path: Path) -> None:
    """On the processor, where these two can be computed too; four bits need a card."""
    pytest.importorskip("torchao", reason="the extra torchao is not installed: it slows every import of PEFT")
    folder = random_model("mistral")
    source = Source(
        form=f"torchao:{kind}", engine="torchao", folder=folder, base_folder=folder, context_length=32, threads=1
    )
    base = ENGINES.get("torchao").load(source)  # type: ignore[attr-defined]
    quantised = {
        name
        for name, module in base.model.named_modules()
        if "torchao" in type(getattr(module, "weight", None)).__module__
    }
    linear = {name for name, module in base.model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert quantised == linear - {"lm_head"}
    found = torch.from_numpy(ENGINES.get("torchao").scorer(source).logits(IDS[0].tolist()))
    source = source.model_copy(update={"form": "merged:bf16", "engine": "transformers"})
    wide = torch.from_numpy(ENGINES.get("transformers").scorer(source).logits(IDS[0].tolist()))
    apart = float((found - wide).abs().mean() / wide.abs().mean())
    assert 0.0 < apart < {"int8": 0.05, "fp8": 0.15}[kind], apart
