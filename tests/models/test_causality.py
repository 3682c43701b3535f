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
from lorabench.models import base as base_module
from lorabench.models.base import FrozenBase, load_base
from lorabench.models.causality import find_lookahead
from lorabench.tokens.packing import PackedBatch

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
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
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


def test_weights_as_small_as_at_the_start_of_pretraining_show_it_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(AutoConfig.for_model("bert", **SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="tokens after them"):
        load_base(tmp_path, precision="fp32", device="cpu")


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
    assert base.lookahead() == 0.0
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_takes_no_text_alone_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(AutoModelForCausalLM, "qwen2", GROUPED, tmp_path / "model")

    def forward(*_: Any, **__: Any) -> None:
        raise ValueError("pixel values\nare missing")

    monkeypatch.setattr("transformers.Qwen2ForCausalLM.forward", forward)
    with pytest.raises(ModelError, match="cannot score a text: pixel values are missing"):
        load_base(folder, precision="fp32", device="cpu")


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_check_is_cheap(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = FrozenBase.token_nll

    def counting(self: FrozenBase, batch: PackedBatch) -> Tensor:
        seen.append(len(batch.input_ids))
        return real(self, batch)

    monkeypatch.setattr(FrozenBase, "token_nll", counting)
    monkeypatch.setattr("lorabench.models.causality.MAX_LONG_WORK", 0)
    folder = save(AutoModelForCausalLM, kind, GROUPED, tmp_path / "model")
    base_module.load_base(folder, precision="fp32", device="cpu")
    assert len(seen) == 3
    assert sum(seen) <= 42


def lookahead(see: Callable[[int, int], bool], *, packs: bool = False) -> float:
    """What is found in a model whose score at a position is a sum over the positions that it sees."""

    def score(batch: PackedBatch) -> Tensor:
        size = len(batch.input_ids)
        visible = np.array([[see(one, other) for other in range(size)] for one in range(size)])
        if not packs:
            assert len(batch.segment_starts) == 2
        return torch.from_numpy((visible * np.sin(batch.input_ids)[None]).sum(1) + batch.targets * 0.0)

    return find_lookahead(
        score, vocabulary_size=100, longest=512, num_parameters=1000, packs=packs, dtype=torch.float32
    )


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 16, 32, 64])
def test_looking_ahead_within_blocks_is_found(size: int) -> None:
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


def test_documents_that_see_one_another_are_found() -> None:
    assert lookahead(lambda one, other: other <= one, packs=True) > 0.01, "it sees the document before it"
    own = [range(0, 2), range(2, 12), range(12, 14)]
    place = {position: index for index, places in enumerate(own) for position in places}
    assert lookahead(lambda one, other: other <= one and place[one] == place[other], packs=True) == 0.0
    assert lookahead(lambda one, other: other <= one or place[other] == 2, packs=True) > 0.01


def test_a_document_of_one_token_has_nothing_ahead() -> None:
    def fail(batch: PackedBatch) -> Tensor:
        raise AssertionError

    assert find_lookahead(fail, vocabulary_size=9, longest=1, num_parameters=1, packs=False, dtype=torch.float32) == 0.0
