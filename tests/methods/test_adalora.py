"""AdaLoRA against PEFT's own training of it, step by step, and what is left of it when a run ends, stops or goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lorabench.core.errors import ConfigError
from lorabench.experiment.schema import TrainingSettings
from lorabench.methods.adalora import AdaloraSettings
from lorabench.methods.attach import attach
from lorabench.models.base import FrozenBase, load_base
from lorabench.training.checkpoints import Checkpoints
from lorabench.training.loop import Course, TrainingText, train
from tests.fast.fast_cases import packed
from tests.methods.families import VOCABULARY, save_tiny
from tests.methods.test_every_method import own_nll
from tests.training.recording import recording_losses
from tests.weights import draw_weights

LENGTH, NUM_STEPS, FIRST_CUTS, LAST_CUT = 12, 20, 2, 14
ADAPTER = AdaloraSettings(method="adalora", rank=2, initial_rank=4, alpha=8.0, delta_t=3)
TRAINING = TrainingSettings(
    learning_rate=1e-2, batch_size=2, context_length=LENGTH, schedule="constant", warmup_ratio=0.0, precision="fp32"
)
TEXT = TrainingText([ids.astype(np.int32) for ids in np.random.default_rng(0).integers(2, VOCABULARY, (40, LENGTH))], 1)
"""Each document is a row."""
COURSE = Course.of(TEXT, TRAINING, seed=3, micro_batch_size=1, num_evaluations=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = save_tiny("llama", folder)
    draw_weights(model, 0.3)
    model.save_pretrained(folder)
    return folder


def trained(base: FrozenBase, folder: Path, *stops: int) -> Any:
    """The adapter at the end of the course, attached anew after each of the stops; still on the base."""
    checkpoints = Checkpoints(folder, "key", 1e9, num_recorded_steps=10**6)
    for stop in stops:
        adapter = attach(base, ADAPTER, seed=3)
        train(base, adapter, TEXT, COURSE, checkpoints, recording_losses([]), until_step=stop)
        adapter.detach()
    adapter = attach(base, ADAPTER, seed=3)
    train(base, adapter, TEXT, COURSE, checkpoints, recording_losses([]))
    return adapter


def values_of(adapter: Any) -> torch.Tensor:
    """The entries of E, [layers, initial rank]."""
    return torch.stack([weight.detach().clone() for name, weight in adapter.named_parameters() if "lora_E" in name])


def trained_by_peft(peft: Any) -> None:
    """As PEFT's documentation has it: its own loss, which has the penalty in it, and its own allocation."""
    config = peft.peft_config["default"]
    config.total_step, config.tinit, config.tfinal = NUM_STEPS, FIRST_CUTS, NUM_STEPS - LAST_CUT
    weights = [weight for weight in peft.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2, weight_decay=TRAINING.weight_decay)
    rows = TEXT.rows(LENGTH, seed=3, epoch=0)
    for step in range(NUM_STEPS):
        documents = [segment.tokens for row in rows[2 * step : 2 * step + 2] for segment in row]
        ids = torch.tensor(np.array(documents), dtype=torch.int64)
        peft(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, TRAINING.max_grad_norm)
        optimizer.step()
        peft.base_model.update_and_allocate(step + 1)
        optimizer.zero_grad()


def test_it_trains_as_peft_does(model: Path, tmp_path: Path) -> None:
    base = load_base(model, precision="fp32", device="cpu")
    adapter = attach(base, ADAPTER, seed=3)
    trained_by_peft(adapter.trained_model)
    wanted = {name: weight.detach().clone() for name, weight in adapter.named_parameters()}
    pattern = adapter.trained_model.peft_config["default"].rank_pattern
    adapter.detach()
    ours = trained(base, tmp_path)
    for name, weight in ours.named_parameters():
        assert torch.allclose(weight, wanted[name], atol=2e-5), name
    assert (values_of(ours) != 0).flatten(1).tolist() == list(pattern.values())
    assert int((values_of(ours) != 0).sum()) == ADAPTER.rank * len(pattern)


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(1, 7), (LAST_CUT - 1, LAST_CUT, 19)], ids=str)
def test_it_ends_alike_wherever_it_was_stopped(model: Path, tmp_path: Path, stops: tuple[int, ...]) -> None:
    base = load_base(model, precision="fp32", device="cpu")
    whole = trained(base, tmp_path / "whole")
    end = [weight.detach().clone() for weight in whole.parameters]
    whole.detach()
    assert all(map(torch.equal, trained(base, tmp_path / "parts", *stops).parameters, end))


@pytest.mark.slow
def test_what_is_cut_is_saved_as_zeros(model: Path, tmp_path: Path) -> None:
    base = load_base(model, precision="fp32", device="cpu")
    adapter = trained(base, tmp_path / "run")
    adapter.save(tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    values = torch.stack([tensor for name, tensor in saved.items() if "lora_E" in name])
    assert values.shape[1] == ADAPTER.initial_rank
    assert int((values != 0).sum()) == ADAPTER.rank * len(values)
    batch = packed([(9, 13, 2)], VOCABULARY)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    read = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    assert torch.allclose(own_nll(read, batch), base.token_nll(batch).double(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["nf4", "int8", "fp8"])
def test_it_is_trained_on_quantised_bases(model: Path, tmp_path: Path, quantization: Any) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    base = load_base(model, precision="fp32", device="cpu", quantization=quantization)
    adapter = trained(base, tmp_path / "whole")
    end = [weight.detach().clone() for weight in adapter.parameters]
    assert int((values_of(adapter) != 0).sum()) == ADAPTER.rank * len(values_of(adapter))
    adapter.detach()
    again = trained(base, tmp_path / "parts", 7)
    assert all(map(torch.equal, again.parameters, end))


def test_settings_that_leave_nothing_to_cut_are_refused() -> None:
    assert AdaloraSettings(method="adalora", rank=8).first_rank == 12
    with pytest.raises(ValueError, match="initial_rank 8 should be above rank 8"):
        AdaloraSettings(method="adalora", rank=8, initial_rank=8)
    with pytest.raises(ValueError, match=r"initial_share 0.5 and final_share 0.5 should be at most 0.9 together"):
        AdaloraSettings(method="adalora", initial_share=0.5, final_share=0.5)


def test_a_run_of_one_step_is_refused(model: Path) -> None:
    adapter = attach(load_base(model, precision="fp32", device="cpu"), ADAPTER, seed=0)
    with pytest.raises(ConfigError, match="takes two steps, and this run has 1"):
        adapter.set_num_steps(1)
    adapter.set_num_steps(2)
