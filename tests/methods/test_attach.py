from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lorabench.methods.attach import attach
from lorabench.methods.saved import attach_saved
from tests.fast.fast_cases import FAMILIES, alone_nll, batches, packed, randomise, settings, tiny_base

TinyModel = Callable[[str], Path]
METHODS: list[dict[str, Any]] = [
    {},
    {"method": "rslora", "alpha": "2r"},
    {"method": "dora"},
    {"target_modules": "attention", "dropout": 0.2},
]


def plain_model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changes", METHODS, ids=str)
def test_what_is_saved_is_read_by_plain_peft(
    tiny_model: TinyModel, family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    base = tiny_base(tiny_model(family), spread=1.0)
    plain = plain_model(tiny_model(family))
    plain.load_state_dict(base.model.state_dict())
    adapter = attach(base, settings(**changes), seed=1)
    randomise(adapter)
    adapter.save(tmp_path / "adapter")
    batch = packed([(9, 30, 2)], base.model.config.vocab_size)
    ours = base.token_nll(batch).double()
    theirs = alone_nll(PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval(), batch)
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_is_unmerged(tiny_model: TinyModel, family: str) -> None:
    base = tiny_base(tiny_model(family))
    randomise(attach(base, settings(), seed=1))
    batch = batches(base, 1)[0]
    adapted = base.token_nll(batch)
    for module in base.model.modules():
        if hasattr(module, "merge") and hasattr(module, "lora_A"):
            module.merge()
    base.choose_path()
    assert base.execution.kind == "reference"
    assert "merged" in base.execution.reason
    assert torch.allclose(base.token_nll(batch), adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_plain_peft_saves_is_read_here(tiny_model: TinyModel, family: str, tmp_path: Path) -> None:
    base = tiny_base(tiny_model(family), spread=1.0)
    plain = plain_model(tiny_model(family))
    plain.load_state_dict(base.model.state_dict())
    torch.manual_seed(4)
    config = LoraConfig(
        r=3, lora_alpha=5, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False,
        fan_in_fan_out=family == "gpt2",
    )  # fmt: skip
    theirs = get_peft_model(plain, config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    batch = packed([(9, 30, 2)], base.model.config.vocab_size)
    attach_saved(base, tmp_path / "adapter")
    assert base.execution.kind == "fast"
    assert torch.allclose(base.token_nll(batch).double(), alone_nll(theirs, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "pissa", "full"])
@pytest.mark.parametrize("family", ["gpt2", "smollm2"])
def test_detaching_leaves_the_base_bit_for_bit(tiny_model: TinyModel, family: str, method: str) -> None:
    base = tiny_base(tiny_model(family))
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    batch = batches(base, 1)[0]
    scores = base.token_nll(batch)
    adapter = attach(base, settings(method=method), seed=0)
    optimizer = torch.optim.SGD(adapter.parameters, lr=0.1)
    for _ in range(2):
        torch.autograd.backward(base.loss(batch) / batch.num_scored)
        optimizer.step()
    assert not torch.equal(base.token_nll(batch), scores)
    adapter.detach()
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(base.token_nll(batch), scores)


def test_an_adapters_weights_depend_on_its_seed_alone(tiny_model: TinyModel) -> None:
    base = tiny_base(tiny_model("smollm2"))
    seen = []
    for seed, noise in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(noise)
        adapter = attach(base, settings(), seed=seed)
        seen.append([parameter.detach().clone() for parameter in adapter.parameters])
        adapter.detach()
    assert all(map(torch.equal, seen[0], seen[1]))
    assert not all(map(torch.equal, seen[0], seen[2]))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_files_are_those_of_peft(tiny_model: TinyModel, family: str, tmp_path: Path) -> None:
    adapter = attach(tiny_base(tiny_model(family)), settings(), seed=0)
    adapter.save(tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    plain = get_peft_model(
        plain_model(tiny_model(family)),
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=family == "gpt2"),
    )
    plain.save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "theirs"))
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8.0, "LORA")
    assert config["fan_in_fan_out"] == (family == "gpt2")
