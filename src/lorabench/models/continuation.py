"""What a model writes after prompts, greedily or sampled: by the fast path's passes, or by Transformers' own loop."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lorabench.core.errors import ModelError
from lorabench.fast.continuation import Choose, can_continue, continue_prompts

if TYPE_CHECKING:
    from torch import Tensor

    from lorabench.models.base import FrozenBase

Prompts = Sequence[Sequence[int]]


def continue_greedily(
    base: FrozenBase, prompts: Prompts, *, max_new_tokens: int, end_ids: Sequence[int]
) -> list[list[int]]:
    """The most likely tokens after each prompt, at most `max_new_tokens`. Those after one of `end_ids` mean nothing.

    Raises ModelError where Transformers would leave an adapter's virtual tokens out.
    Prompts of several lengths need a base that `can_pad`. Whatever else the model's generation settings ask for, such
    as penalties or beams, is left out.
    """
    return _continue(base, prompts, {"do_sample": False}, lambda logits: logits.argmax(-1), max_new_tokens, end_ids)


def continue_sampled(
    base: FrozenBase, prompts: Prompts, *, max_new_tokens: int, temperature: float, top_p: float
) -> list[list[int]]:
    """`max_new_tokens` tokens after each prompt, drawn by torch's random state; prompts of one length.

    Tokens that end a text for the model are never drawn.
    """
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    warpers = (TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p))
    ends = _end_ids(base.model)

    def draw(logits: Tensor) -> Tensor:
        logits[:, ends] = -torch.inf
        for warper in warpers:
            logits = warper(None, logits)
        return torch.multinomial(torch.softmax(logits, -1), 1)[:, 0]

    sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    sampling["suppress_tokens"] = ends or None
    return _continue(base, prompts, sampling, draw, max_new_tokens, [])


def _continue(
    base: FrozenBase,
    prompts: Prompts,
    settings: dict[str, Any],
    choose: Choose,
    max_new_tokens: int,
    end_ids: Sequence[int],
) -> list[list[int]]:
    """By `choose` on the fast path, by Transformers' generation `settings` elsewhere."""
    longest = max(map(len, prompts))
    if base.decoder is not None and can_continue(base.decoder, longest + max_new_tokens):
        written = continue_prompts(base.decoder, prompts, choose, max_new_tokens=max_new_tokens, end_ids=end_ids)
        return _lists(written)
    ids, mask = torch.zeros((2, len(prompts), longest), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    ids, mask = ids.to(base.device), mask.to(base.device)
    settings = {**settings, "max_new_tokens": max_new_tokens, "eos_token_id": list(end_ids) or None}
    with _own_settings(base.model, settings), torch.inference_mode(), warnings.catch_warnings():
        for message in ("`past_key_values` is deprecated", "Position ids are not supported"):  # of virtual tokens
            warnings.filterwarnings("ignore", message=message)
        warnings.filterwarnings("error", message="Both `past_key_values` and `cache` are set")
        try:
            return _lists(base.model.generate(input_ids=ids, attention_mask=mask)[:, longest:])
        except FutureWarning:
            raise ModelError(
                "Transformers leaves the keys and values of virtual tokens out when it writes, so this adapter's text "
                "is not known; its scores hold them"
            ) from None


def _end_ids(model: Any) -> list[int]:
    """What the model's own generation settings call the end of a text."""
    found = model.generation_config.eos_token_id
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def _lists(rows: Tensor) -> list[list[int]]:
    values: list[list[int]] = rows.tolist()
    return values


@contextmanager
def _own_settings(model: Any, settings: dict[str, Any]) -> Iterator[None]:
    """Inside, the model's own generation settings are away: what a call leaves open they would decide."""
    from transformers import GenerationConfig

    wanted = GenerationConfig(num_beams=1, pad_token_id=0, **settings)
    owners = [model.get_base_model(), model] if hasattr(model, "peft_type") else [model]
    before = [owner.generation_config for owner in owners]
    try:
        for owner in owners:
            owner.generation_config = wanted
        yield
    finally:
        for owner, own in zip(owners, before, strict=True):
            owner.generation_config = own
