"""Sample continuations: what the model writes after the beginning of a document it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lorabench.core.device import own_random_state
from lorabench.models.base import FrozenBase
from lorabench.models.continuation import continue_sampled
from lorabench.tokens.packing import Prefix, Tokens, prefix_of
from lorabench.tokens.tokenizer import Tokeniser

NUM_PROMPT_TOKENS = 32
NUM_NEW_TOKENS = 24
TEMPERATURE = 0.8
TOP_P = 0.95


def choose_prompts(tokens: Sequence[Tokens], count: int) -> list[int]:
    """The first `count` texts that are longer than a prompt."""
    long_enough = [index for index, ids in enumerate(tokens) if len(ids) > NUM_PROMPT_TOKENS]
    return long_enough[:count]


def continue_documents(
    base: FrozenBase,
    tokeniser: Tokeniser,
    tokens: Sequence[Tokens],
    chosen: Sequence[int],
    seed: int,
    *,
    prefix: Prefix,
) -> list[str]:
    """Sampled continuations, one for each chosen document; the same for the same seed, model and machine.

    Sampling (temperature 0.8, nucleus 0.95) draws from its own random state and leaves torch's as it was.
    """
    if not chosen:
        return []
    prompts = [[prefix_of(prefix, index), *tokens[index][:NUM_PROMPT_TOKENS].tolist()] for index in chosen]
    with own_random_state(base.device):
        torch.manual_seed(seed)
        written = continue_sampled(base, prompts, max_new_tokens=NUM_NEW_TOKENS, temperature=TEMPERATURE, top_p=TOP_P)
    return [tokeniser.decode(row) for row in written]
