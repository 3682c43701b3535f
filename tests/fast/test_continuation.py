"""Continuations on the fast path are those of Transformers' own loop, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from lorabench.fast.gpu.kernels import GpuKernels
from lorabench.fast.gpu.passes import Passes
from lorabench.methods.attach import attach
from lorabench.models import continuation
from lorabench.models.base import FrozenBase
from lorabench.models.continuation import continue_greedily, continue_sampled
from tests.fast.fast_cases import FAMILIES, REFERENCE, randomise, settings, tiny_base
from tests.fast.test_llama_like import MODELS, make_base
from tests.marks import slow

TinyModel = Callable[[str], Path]
LENGTHS = (11, 1, 17, 4)
NEW = 14
pytestmark = pytest.mark.usefixtures("one_thread")


def prompts(vocabulary: int, lengths: Sequence[int] = LENGTHS, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(2, vocabulary, length).tolist() for length in lengths]


def adapted(base: FrozenBase) -> FrozenBase:
    randomise(attach(base, settings(), seed=3))
    assert base.execution.kind == "fast", base.execution
    return base


def transformers_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*values: object) -> None:
        raise AssertionError("Transformers' loop was called")

    monkeypatch.setattr(continuation, "_own_settings", fail)


def both_ways(base: FrozenBase, write: Callable[[], list[list[int]]]) -> tuple[list[list[int]], list[list[int]]]:
    """On the fast path, where Transformers' loop is not called, and by it."""
    with pytest.MonkeyPatch.context() as patch:
        transformers_is_away(patch)
        ours = write()
    base.use_reference_path(REFERENCE)
    return ours, write()


def alone(base: FrozenBase, asked: Sequence[Sequence[int]]) -> list[list[int]]:
    """Each prompt by itself through the model's whole forward pass, again for each token."""
    rows = []
    for prompt in asked:
        ids = torch.tensor([prompt])
        for _ in range(NEW):
            with torch.no_grad():
                ids = torch.cat([ids, base.model(input_ids=ids, use_cache=False).logits[:, -1].argmax(-1)[:, None]], 1)
        rows.append(ids[0, len(prompt) :].tolist())
    return rows


QUICK = {"qwen3", "mistral", "llama-yarn"}


@pytest.mark.parametrize("name", [name if name in QUICK else slow(name) for name in MODELS if name != "phi4-mini"])
def test_every_family_continues_as_each_prompt_alone(name: str) -> None:
    """Sliding windows of 12 tokens are left behind on the way."""
    base = adapted(make_base(name))
    asked = prompts(base.vocabulary_size)
    with pytest.MonkeyPatch.context() as patch:
        transformers_is_away(patch)
        ours = continue_greedily(base, asked, max_new_tokens=NEW, end_ids=[])
    assert ours == alone(base, asked)
    assert len({tuple(row) for row in ours}) == len(asked)


@pytest.mark.parametrize("device", ["processor", slow("card")])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_transformers(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, family: str, device: str
) -> None:
    """On a processor's passes, and on a card's as torch computes them here."""
    if device == "card":
        monkeypatch.setattr("lorabench.models.base.kernels_for", lambda *which: GpuKernels(Passes()))
    base = adapted(tiny_base(tiny_model(family)))
    asked = prompts(base.vocabulary_size)
    ours, theirs = both_ways(base, lambda: continue_greedily(base, asked, max_new_tokens=NEW, end_ids=[]))
    assert ours == theirs


def test_a_rotary_embedding_that_changes_on_the_way_goes_through_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 40 tokens the longer frequencies hold for those before them too."""
    prefix, changes = MODELS["phi4-mini"]
    monkeypatch.setitem(MODELS, "phi4-mini", (prefix, {**changes, "original_max_position_embeddings": 40}))
    base = adapted(make_base("phi4-mini"))
    asked = prompts(base.vocabulary_size, (20, 20))
    with pytest.MonkeyPatch.context() as patch:
        transformers_is_away(patch)
        assert continue_greedily(base, asked, max_new_tokens=NEW, end_ids=[]) == alone(base, asked)
        with pytest.raises(AssertionError, match="Transformers' loop"):
            continue_greedily(base, asked, max_new_tokens=21, end_ids=[])


def test_nothing_is_written_once_all_rows_have_ended(tiny_model: TinyModel) -> None:
    base = adapted(tiny_base(tiny_model("smollm2")))
    asked = prompts(base.vocabulary_size)
    whole = continue_greedily(base, asked, max_new_tokens=NEW, end_ids=[])
    ends = [row[place] for row, place in zip(whole, (2, 0, 5, 3), strict=True)]
    firsts = [next(place for place, token in enumerate(row) if token in ends) for row in whole]
    ended, theirs = both_ways(base, lambda: continue_greedily(base, asked, max_new_tokens=NEW, end_ids=ends))
    assert {len(row) for row in ended} == {len(row) for row in theirs} == {max(firsts) + 1}
    for row, short, other, first in zip(whole, ended, theirs, firsts, strict=True):
        assert row[: first + 1] == short[: first + 1] == other[: first + 1]


@pytest.mark.parametrize("family", ["gpt2", "smollm2"])
def test_samples_are_drawn_as_transformers_draws_them(tiny_model: TinyModel, family: str) -> None:
    base = adapted(tiny_base(tiny_model(family)))
    asked = prompts(base.vocabulary_size, (9, 9, 9))
    end = base.model.generation_config.eos_token_id

    def write() -> list[list[int]]:
        torch.manual_seed(7)
        return continue_sampled(base, asked, max_new_tokens=NEW, temperature=0.8, top_p=0.95)

    ours, theirs = both_ways(base, write)
    assert ours == theirs
    assert len(ours[0]) == NEW
    assert end is None or end not in {token for row in ours for token in row}
