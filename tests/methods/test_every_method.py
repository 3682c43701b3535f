"""Every method, on a tiny GPT-2 and a tiny Llama: planned, trained, taken up again, saved and read by plain PEFT."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from lorabench.core.errors import CancelledError, ConfigError, ModelError
from lorabench.experiment.schema import TrainingSettings
from lorabench.methods.attach import attach
from lorabench.methods.registry import METHODS
from lorabench.methods.saved import attach_saved
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import FrozenBase, load_base
from lorabench.models.continuation import continue_greedily
from lorabench.models.quantized import Quantization
from lorabench.models.shape import read_model_shape
from lorabench.training.checkpoints import Checkpoints
from lorabench.training.loop import Course, Hooks, TrainingText, train
from tests.fast.fast_cases import packed
from tests.marks import slow
from tests.methods.families import DENSE, VOCABULARY, save_tiny
from tests.weights import draw_weights

OWN: dict[str, dict[str, Any]] = {
    "oft": {"block_size": 8},
    "fourierft": {"num_frequencies": 20},
    "prompt_tuning": {"virtual_tokens": 4},
    "prefix_tuning": {"virtual_tokens": 4},
    "peft": {"config": {"peft_type": "VERA", "r": 3}},
}
PATTERNS = {"rank_pattern": {"(q_proj|c_attn)": 2, "0.mlp.[a-z_]+": 6}, "alpha_pattern": {"(down|c)_proj": 3.0}}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora with patterns": PATTERNS,
    "lora_fa with patterns": PATTERNS,
    "pissa with patterns": PATTERNS,
    "dora with patterns": PATTERNS,
    "lora with a whole head": {"modules_to_save": "lm_head"},
    "lora_fa with a whole layer": {"target_modules": "q_proj", "modules_to_save": "up_proj"},
    "pissa with whole norms": {"modules_to_save": "input_layernorm,model.norm,embed_tokens"},
}
"""By a method's name and what is set beside it."""
LLAMAS_NAMES = {"lora_fa with a whole layer", "pissa with whole norms"}
WITHOUT_DROPOUT = {name for name, method in METHODS.all().items() if not method.uses("dropout")}
NOT_ON_GPT2 = {"boft", "hra", "loha", "lokr", "miss", "oft", "olora"}
QUICK = {
    ("gpt2", "lora with patterns"),
    ("llama", "pissa with whole norms"),
    *(("llama", name) for name in ("lora_plus", "vera", "ia3", "prompt_tuning", "full", "peft")),
}
CASES = [
    (family, method) if (family, method) in QUICK else slow(family, method)
    for family in ("llama", "gpt2")
    for method in (*(name for name, known in METHODS.all().items() if not known.quantizations), *VARIANTS)
    if (family, method) not in {("llama", "bitfit"), *(("gpt2", name) for name in (*NOT_ON_GPT2, *LLAMAS_NAMES))}
]
SETTINGS = TrainingSettings(learning_rate=1e-2, batch_size=2, context_length=16, precision="fp32")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models whose parts are far from linear."""
    folder = tmp_path_factory.mktemp("models")
    for family in ("llama", "gpt2", "gpt_neox"):
        model = save_tiny(family, folder / family)
        draw_weights(model, 0.3)
        model.save_pretrained(folder / family)
    return folder


def settings_of(name: str) -> AdapterSettings:
    method = name.split()[0]
    dropout = {} if method in WITHOUT_DROPOUT else {"dropout": 0.1}
    own = OWN.get(method, {}) | VARIANTS.get(name, {})
    return METHODS.get(method).settings(method=method, rank=4, **dropout, **own)


def text() -> TrainingText:
    generator = np.random.default_rng(0)
    return TrainingText([generator.integers(2, VOCABULARY, 24).astype(np.int32) for _ in range(6)], prefix=1)


def trained(base: FrozenBase, settings: AdapterSettings, folder: Path, stop_after: int = 0) -> Any:
    """The adapter after the course, or as it was when it was told to stop."""
    adapter = attach(base, settings, seed=3)
    course = Course.of(text(), SETTINGS, seed=3, micro_batch_size=1, num_evaluations=1)
    seen: list[dict[str, Any]] = []
    hooks = Hooks(
        on_step=seen.append,
        evaluate=lambda: ({}, 0),
        on_evaluation=lambda scores: None,
        on_start=lambda position, problems: None,
        on_checkpoint=lambda: None,
        should_stop=lambda: bool(stop_after) and len(seen) == stop_after,
    )
    checkpoints = Checkpoints(folder, "key", 1e9, num_recorded_steps=10**6)
    if stop_after:
        with pytest.raises(CancelledError):
            train(base, adapter, text(), course, checkpoints, hooks)
    else:
        train(base, adapter, text(), course, checkpoints, hooks)
    return adapter


def own_nll(model: Any, batch: Any) -> torch.Tensor:
    """Nats of each target, each document by itself; virtual tokens come first and are not scored."""
    losses = []
    for start, end in itertools.pairwise(batch.segment_starts):
        ids, targets = torch.from_numpy(batch.input_ids[start:end]), torch.from_numpy(batch.targets[start:end])
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, -len(ids) :].double()
        losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    return torch.cat(losses)


def plain_scores(model: Path, adapter: Path, method: str, batch: Any) -> torch.Tensor:
    """By Transformers and PEFT alone."""
    if method == "full":
        return own_nll(AutoModelForCausalLM.from_pretrained(adapter, dtype="auto").eval(), batch)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if method == "bitfit":
        missing, unexpected = plain.load_state_dict(load_file(adapter / "model.safetensors"), strict=False)
        assert not unexpected
        assert missing
        return own_nll(plain.eval(), batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bases are drawn again, prefixes are given by an old name
        loaded = PeftModel.from_pretrained(plain, str(adapter)).eval()
        return own_nll(loaded, batch)


@pytest.mark.parametrize(("family", "method"), CASES)
def test_planned_trained_taken_up_saved_and_read(models: Path, family: str, method: str, tmp_path: Path) -> None:
    settings, kind = settings_of(method), METHODS.get(method.split()[0])
    shape = read_model_shape(models / family)
    targets = kind.resolve_targets(shape, settings)
    base = load_base(models / family, precision="fp32", device="cpu")
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}

    adapter = trained(base, settings, tmp_path / "whole")
    adapter.require_as_planned(targets, kind.count_trainable(shape, settings, targets))
    adapter.save(tmp_path / "adapter")
    batch = packed([(9, 13, 2)], VOCABULARY)
    with adapter.as_saved():
        ours = base.token_nll(batch).double()
    end = [parameter.detach().clone() for parameter in adapter.parameters]
    adapter.detach()
    assert base.model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())
    assert not torch.allclose(base.token_nll(batch).double(), ours, atol=1e-4)

    trained(base, settings, tmp_path / "parts", stop_after=4).detach()
    again = trained(base, settings, tmp_path / "parts")
    assert all(map(torch.equal, again.parameters, end))
    again.save(tmp_path / "again")
    again.detach()
    files = {path.name: path.read_bytes() for path in (tmp_path / "adapter").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}

    (weights,) = (tmp_path / "adapter").glob("*.safetensors")
    saved = load_file(weights)
    assert sum(map(torch.numel, saved.values())) == kind.count_saved(shape, settings, targets)
    assert all(any(f".{target}." in f".{name}" for name in saved) for target in targets)
    assert torch.allclose(plain_scores(models / family, tmp_path / "adapter", method, batch), ours, atol=1e-5)
    attach_saved(base, tmp_path / "adapter")
    assert torch.allclose(base.token_nll(batch).double(), ours, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["packed", "documents"])
@pytest.mark.parametrize("method", [name for name in METHODS.all() if name not in {"bitfit", "prefix_tuning"}])
def test_layers_that_are_computed_once_more_have_the_same_gradients(
    models: Path, method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantization: Quantization = "nf4" if method == "loftq" else "none"
    if quantization != "none":
        pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    base = load_base(models / "llama", precision="fp32", device="cpu", quantization=quantization)
    adapter = attach(base, settings_of(method), seed=3)
    if base.decoder is not None:
        base.use_reference_path("a test")
    if not base.can_checkpoint:
        assert METHODS.get(method).num_virtual_tokens(settings_of(method))
        return
    monkeypatch.setattr(base, "_packs", base._packs and path == "packed")
    gradients = []
    for base.checkpointing in (False, True):
        torch.autograd.backward(base.loss(packed([(9, 13, 2), (20,)], VOCABULARY), [1, 2]))
        gradients.append([parameter.grad for parameter in adapter.parameters])
        for parameter in adapter.parameters:
            parameter.grad = None
    for plain, again in zip(*gradients, strict=True):
        assert (plain is None) == (again is None)
        assert plain is None or torch.equal(plain, again)


@pytest.mark.parametrize("method", sorted(NOT_ON_GPT2))
def test_layers_that_peft_does_not_take_are_refused_in_the_plan(models: Path, method: str) -> None:
    with pytest.raises(ConfigError, match="as GPT-2's; take lora"):
        METHODS.get(method).resolve_targets(read_model_shape(models / "gpt2"), settings_of(method))


def test_what_would_be_written_without_its_prefix_is_not_written(models: Path) -> None:
    base = load_base(models / "llama", precision="fp32", device="cpu")
    attach(base, settings_of("prefix_tuning"), seed=0)
    with pytest.raises(ModelError, match="leaves the keys and values of virtual tokens out"):
        continue_greedily(base, [[3, 4, 5]], max_new_tokens=3, end_ids=[])


def test_prefixes_are_as_wide_as_the_heads(tmp_path: Path) -> None:
    """Which on Gemma-7B are not the hidden size by the heads."""
    config = AutoConfig.for_model("gemma", **DENSE["gemma"] | {"head_dim": 24}, vocab_size=VOCABULARY)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    settings, kind = settings_of("prefix_tuning"), METHODS.get("prefix_tuning")
    planned = kind.count_trainable(read_model_shape(tmp_path), settings, [])
    adapter = attach(load_base(tmp_path, precision="fp32", device="cpu"), settings, seed=0)
    adapter.require_as_planned([], planned)
    assert planned == 4 * 2 * 2 * 24
