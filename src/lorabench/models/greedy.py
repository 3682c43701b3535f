"""Greedy continuations with a key-value cache, by Transformers' own loop and by nothing but the largest logit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from lorabench.models.base import FrozenBase


def continue_greedily(
    base: FrozenBase, input_ids: Tensor, mask: Tensor, *, max_new_tokens: int, end_ids: list[int]
) -> Tensor:
    """What follows prompts that are padded on their left: int64 [N, P], mask int64 [N, P] -> [N, <= max_new_tokens].

    Prompts of several lengths need a base that `can_pad`. A row's tokens after one of `end_ids` mean nothing. Whatever
    else the model's generation settings ask for, such as penalties or beams, is left out.
    """
    with _own_settings(base.model, max_new_tokens, end_ids), torch.inference_mode(), warnings.catch_warnings():
        for message in ("`past_key_values` is deprecated", "Position ids are not supported"):  # of virtual tokens
            warnings.filterwarnings("ignore", message=message)
        generated: Tensor = base.model.generate(input_ids=input_ids, attention_mask=mask)
    return generated[:, input_ids.shape[1] :]


@contextmanager
def _own_settings(model: Any, max_new_tokens: int, end_ids: list[int]) -> Iterator[None]:
    """Inside, the model's own generation settings are away: what a call leaves open they would decide."""
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, eos_token_id=end_ids or None, pad_token_id=0
    )
    owners = [model.get_base_model(), model] if hasattr(model, "peft_type") else [model]
    before = [owner.generation_config for owner in owners]
    try:
        for owner in owners:
            owner.generation_config = settings
        yield
    finally:
        for owner, own in zip(owners, before, strict=True):
            owner.generation_config = own
