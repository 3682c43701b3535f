"""Models whose tokens see later ones are refused when they are loaded, and no others are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from lorabench.core.errors import ModelError
from lorabench.models.base import load_base
from lorabench.models.causality import Ids, ScoreChanges, find_changes
from tests.weights import draw_weights

SIZES: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
ENCODERS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "bert": (AutoModelForMaskedLM, "bert", SIZES),
    "roberta": (AutoModelForMaskedLM, "roberta", SIZES),
    "electra": (AutoModelForMaskedLM, "electra", SIZES),
    "a decoder's class around an encoder": (AutoModelForCausalLM, "bert", SIZES | {"is_decoder": False}),
    "llama in both directions": (AutoModelForCausalLM, "llama", GROUPED | {"is_causal": False}),
    "gemma in both directions": (AutoModelForCausalLM, "gemma", GROUPED | {"use_bidirectional_attention": True}),
    "gpt2 in both directions": (
        AutoModelForCausalLM,
        "gpt2",
        {"vocab_size": 160, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "is_causal": False},
    ),
}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED),
    "a window that slides": ("mistral", GROUPED | {"sliding_window": 4}),
    "windows and full attention": ("gemma2", GROUPED | {"sliding_window": 4}),
    "experts": ("mixtral", GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "bert as a decoder": ("bert", SIZES | {"is_decoder": True}),
    "state space": ("mamba", {"vocab_size": 160, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "recurrent": ("rwkv", {"vocab_size": 160, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}),
    "alibi": ("bloom", {"vocab_size": 160, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
}


def save(auto: Any, kind: str, settings: dict[str, Any], folder: Path) -> Path:
    torch.manual_seed(0)
    model = auto.from_config(AutoConfig.for_model(kind, **settings)).float()
    draw_weights(model, 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_model_that_sees_later_tokens_is_refused(name: str, precision: Any, tmp_path: Path) -> None:
    auto, kind, settings = ENCODERS[name]
    folder = save(auto, kind, settings, tmp_path / "model")
    with pytest.raises(
        ModelError, match=r"change by up to [0-9.]+ nats with the tokens after them.*decoders"
    ) as caught:
        load_base(folder, precision=precision, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_weights_as_small_as_at_the_start_of_pretraining_show_it_too(kind: str, precision: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="tokens after them"):
        load_base(tmp_path, precision=precision, device="cpu")


def test_an_encoder_decoder_is_refused_by_its_name(tmp_path: Path) -> None:
    settings = {"vocab_size": 160, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "pad_token_id": 1}
    more = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    save(AutoModelForSeq2SeqLM, "bart", settings | more, tmp_path)
    with pytest.raises(ModelError, match="encoder-decoder model"):
        load_base(tmp_path, precision="fp32", device="cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", DECODERS)
def test_no_causal_model_is_refused(name: str, precision: Any, tmp_path: Path) -> None:
    kind, settings = DECODERS[name]
    folder = save(AutoModelForCausalLM, kind, settings, tmp_path / "model")
    base = load_base(folder, precision=precision, device="cpu")
    state = torch.get_rng_state()
    assert base.score_changes() == (0.0, 0.0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_takes_no_text_alone_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(AutoModelForCausalLM, "olmo", GROUPED, tmp_path / "model")

    def forward(*_: Any, **__: Any) -> None:
        raise ValueError("pixel values\nare missing")

    monkeypatch.setattr("transformers.OlmoForCausalLM.forward", forward)
    with pytest.raises(ModelError, match="cannot score a text: pixel values are missing"):
        load_base(folder, precision="fp32", device="cpu")


@pytest.mark.parametrize(("kind", "shapes"), [("llama", []), ("olmo", [(3, 6)])])
def test_the_check_is_cheap(
    kind: str, shapes: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(AutoModelForCausalLM, kind, GROUPED, tmp_path / "model")
    seen: list[tuple[int, ...]] = []
    real = torch.nn.Embedding.forward

    def counting(self: torch.nn.Embedding, ids: Tensor) -> Tensor:
        seen.append(tuple(ids.shape))
        return real(self, ids)

    monkeypatch.setattr("torch.nn.Embedding.forward", counting)
    monkeypatch.setattr("lorabench.models.causality.MAX_LONG_WORK", 0)
    load_base(folder, precision="fp32", device="cpu")
    assert seen == shapes


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("for_all_rows", [True, False])
def test_random_scores_are_called_random(
    for_all_rows: bool, precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(AutoModelForCausalLM, "olmo", GROUPED, tmp_path / "model")

    def noisy(self: Any, hidden: Tensor) -> Tensor:
        noise = torch.randn(() if for_all_rows else hidden.shape)
        return torch.nn.functional.silu(hidden) + noise.to(hidden.dtype)

    monkeypatch.setattr("transformers.activations.SiLUActivation.forward", noisy)
    with pytest.raises(ModelError, match=r"model: its scores are random: .* differ by up to [0-9.]+ nats"):
        load_base(folder, precision=precision, device="cpu")


def test_drawing_a_number_that_changes_nothing_is_not_random() -> None:
    def score(ids: Ids) -> Tensor:
        torch.rand(())
        return torch.from_numpy(ids)[..., None] * torch.arange(3.0)

    assert changes(score) == (0.0, 0.0)


def changes(score: Callable[[Ids], Tensor], longest: int = 512, *, rows_mix: bool = False) -> ScoreChanges:
    return find_changes(
        score, vocabulary_size=100, longest=longest, num_parameters=1000, dtype=torch.float32, rows_mix=rows_mix
    )


def lookahead(see: Callable[[int, int], bool]) -> float:
    """What is found in a model whose scores at a position come of a sum over the positions that it sees."""

    def score(ids: Ids) -> Tensor:
        size = ids.shape[1]
        visible = np.array([[see(one, other) for other in range(size)] for one in range(size)])
        sums = (visible[None] * np.sin(ids)[:, None]).sum(2)
        return torch.from_numpy(sums)[..., None] * torch.arange(3.0)

    found = changes(score)
    assert found.at_random == 0.0
    return found.with_later_tokens


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 16, 32, 64])
@pytest.mark.parametrize("for_large_models", [True, False])
def test_looking_ahead_within_blocks_is_found(
    size: int, for_large_models: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if for_large_models:
        monkeypatch.setattr("lorabench.models.causality.MAX_LONG_WORK", 0)
    assert lookahead(lambda one, other: other <= one or other // size == one // size) > 0.01


@pytest.mark.parametrize("distance", [1, 2, 5])
def test_looking_a_few_tokens_ahead_is_found(distance: int) -> None:
    assert lookahead(lambda one, other: other <= one + distance) > 0.01
    assert lookahead(lambda one, other: one - 4 < other <= one + distance) > 0.01


def test_a_prefix_that_sees_itself_and_a_summary_of_all_are_found() -> None:
    assert lookahead(lambda one, other: other <= one or max(one, other) < 6) > 0.01
    assert lookahead(lambda one, other: True) > 0.01


def test_what_is_causal_is_not_found() -> None:
    assert lookahead(lambda one, other: other <= one) == 0.0
    assert lookahead(lambda one, other: one - 4 < other <= one) == 0.0
    assert lookahead(lambda one, other: other <= one and other // 8 == one // 8) == 0.0


def test_scores_that_are_minus_infinity_hide_nothing() -> None:
    def score(ids: Ids) -> Tensor:
        sums = torch.from_numpy(np.sin(ids).sum(1, keepdims=True).repeat(ids.shape[1], 1))
        scores = sums[..., None] * torch.arange(4.0)
        scores[..., 3] = -torch.inf
        return scores

    assert changes(score).with_later_tokens > 0.01


def test_rows_that_see_one_another_are_found_where_they_may() -> None:
    def score(ids: Ids) -> Tensor:
        return torch.from_numpy(np.full(ids.shape, np.sin(ids).mean()))[..., None] * torch.arange(3.0)

    assert changes(score, rows_mix=True).with_later_tokens > 1e-4


def test_a_document_of_one_token_has_nothing_ahead() -> None:
    def fail(ids: Ids) -> Tensor:
        raise AssertionError

    assert changes(fail, longest=1) == (0.0, 0.0)


@pytest.mark.parametrize("longest", [2, 4, 5, 6])
def test_short_contexts_are_tried_too(longest: int) -> None:
    def score(ids: Ids) -> Tensor:
        assert ids.shape[1] == longest
        return torch.from_numpy(np.sin(ids).sum(1, keepdims=True).repeat(longest, 1))[..., None] * torch.arange(3.0)

    assert changes(score, longest).with_later_tokens > 0.01
