"""Architectures without a fast path, some without attention: documents of about one length share a padded pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LilyConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from lorabench.methods.attach import attach
from lorabench.models.base import FrozenBase, load_base
from lorabench.models.shape import read_model_shape
from lorabench.models.side_by_side import grouped
from lorabench.tokens.packing import PackedBatch
from tests.fast.fast_cases import alone_nll, losses_and_gradients, packed, randomise, settings
from tests.weights import draw_weights

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4}, "all-linear"),
    "mamba": ({"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, "all-linear"),
    "mamba2": (
        {
            "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2,
            "chunk_size": 16,
        },
        "all-linear",
    ),
    "rwkv": ({"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32}, "all-linear"),
    "recurrent_gemma": (
        {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 16,
        },
        "all-linear",
    ),
    "mpt": ({"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}, "all-linear"),
    "opt": ({"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}, "all-linear"),
    "cohere2": (SIZES | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}, "all-linear"),
    "mixtral": (SIZES | {"num_local_experts": 4}, "attention"),
    "jamba": (SIZES | {"mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False, "num_experts": 4,
                       "attn_layer_period": 2, "attn_layer_offset": 1}, "attention"),
    "nemotron_h": (SIZES | {"num_hidden_layers": None, "hybrid_override_pattern": "M*-", "mamba_num_heads": 8,
                            "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2}, "all-linear"),
}  # fmt: skip


def save(kind: str, folder: Path, **settings: Any) -> Path:
    torch.manual_seed(0)
    sizes = settings or MODELS[kind][0]
    config = AutoConfig.for_model(kind, vocab_size=90, bos_token_id=0, eos_token_id=0, pad_token_id=0, **sizes)
    model = AutoModelForCausalLM.from_config(config).float()
    draw_weights(model, 0.1)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", MODELS)
def test_documents_that_share_a_pass_are_as_by_themselves(kind: str, tmp_path: Path) -> None:
    folder = save(kind, tmp_path / kind)
    base = load_base(folder, precision="fp32", device="cpu")
    assert base.execution.kind == "reference"
    assert read_model_shape(folder).num_parameters == base.num_parameters
    lengths = ((20, 1, 11, 12, 7), (33, 2, 20, 19))
    work: Sequence[PackedBatch] = [packed(lengths, 90, seed) for seed in (1, 2)]
    with count_passes(base) as passes:
        scores = base.token_nll(work[0])
    assert passes == [(4, 33), (5, 12)]
    assert torch.allclose(scores.double(), alone_nll(base.model, work[0]), rtol=1e-5, atol=1e-5)
    adapter = attach(base, settings(target_modules=MODELS[kind][1]), seed=0)
    randomise(adapter)
    wanted = alone_nll(base.model, work[0])
    (first, gradients), _ = losses_and_gradients(base, adapter, work)
    assert first == pytest.approx(float(wanted.sum()) / work[0].num_scored, rel=1e-5)
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


@contextmanager
def count_passes(base: FrozenBase) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the ids of each pass through the model."""
    passes: list[tuple[int, ...]] = []

    def note(module: Any, inputs: Any, options: Any) -> None:
        passes.append(tuple(options["input_ids"].shape))

    hook = base.model.register_forward_pre_hook(note, with_kwargs=True)
    yield passes
    hook.remove()


def test_frequencies_that_grow_with_a_document_are_its_own(tmp_path: Path) -> None:
    """Only documents of one length share a pass, and none gets the frequencies of a longer one before it."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    folder = save("phi", tmp_path, **SIZES, max_position_embeddings=16, rope_parameters=rope)
    base = load_base(folder, precision="fp32", device="cpu")
    batch = packed(((33, 20, 16), (20, 7)), 90)
    fresh = copy.deepcopy(base.model)
    documents = [packed(((length,),), 90) for length in (33, 20, 16, 20, 7)]
    bounds = batch.segment_starts
    wanted = []
    for document, start, end in zip(documents, bounds, bounds[1:], strict=False):
        alone = replace(document, input_ids=batch.input_ids[start:end], targets=batch.targets[start:end])
        wanted.append(alone_nll(copy.deepcopy(fresh), alone))
    with count_passes(base) as passes:
        scores = base.token_nll(batch)
    assert passes == [(1, 33), (2, 20), (1, 16), (1, 7)]
    assert torch.allclose(scores.double(), torch.cat(wanted), rtol=1e-5, atol=1e-5)


def test_documents_share_a_pass_where_little_is_padded() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 300, 200)
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    groups = list(grouped(bounds, "documents", 1000))
    places = np.concatenate([group.places[group.real] for group in groups])
    assert np.array_equal(np.sort(places), np.arange(bounds[-1]))
    assert all(group.real.size <= 1000 for group in groups)
    assert sum(group.real.size for group in groups) < 1.15 * bounds[-1]
    assert len(groups) < 50
    assert all(group.real.all() for group in grouped(bounds, "documents of one length", 1000))
    assert [len(group.real) for group in grouped(bounds, "one document", 1000)] == [1] * 200
    (alone,) = grouped(np.array([0, 50], dtype=np.int32), "documents", 10)
    assert alone.real.shape == (1, 50)


def test_dropout_does_not_depend_on_what_shares_a_pass(tmp_path: Path) -> None:
    base = load_base(save("opt", tmp_path), precision="fp32", device="cpu")
    randomise(attach(base, settings(dropout=0.5), seed=0))
    batch, seeds = packed(((20, 1, 11), (33, 2)), 90), (5, 6)
    together, without = base.loss(batch, seeds), base.loss(batch)
    base._sharing = "one document"
    assert float(base.loss(batch, seeds).detach()) == pytest.approx(float(together.detach()), rel=1e-6)
    assert abs(float((without - together).detach())) > 0.1


def test_an_adapter_of_another_kind_gets_one_document_a_pass(tmp_path: Path) -> None:
    base = load_base(save("opt", tmp_path), precision="fp32", device="cpu")
    model = base.model
    base.model = get_peft_model(model, LilyConfig(target_modules=["q_proj"], stride_A=1, num_B=2, r=2))
    base.choose_path()
    assert base.execution.reason == "an adapter of the kind LILY has no fast path; one document a pass"
    with count_passes(base) as passes:
        base.token_nll(packed(((9, 9), (9,)), 90))
    assert passes == [(1, 9)] * 3
