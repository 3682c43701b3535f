"""Tests that a model is causal: that no token's score changes when only what comes after it changes.

One batch through the model's own forward pass is enough: a text, and the same text with other tokens from a cut on.
Rows of one batch are rounded alike, so before the cut their scores are the same, in bfloat16 too. What changes there is
compared with what changes behind the cut, so that weights as small as at the start of pretraining show it as well. Two
neighbouring cuts are tried, since a model that looks ahead within blocks shows it at one of them.

Where something changes, a batch of nothing but the text tells scores that are random, and rounding, from a look ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lorabench.core.errors import ModelError

CUTS = (4, 5)
NUM_TOKENS = 6
NUM_LONG_TOKENS = 160
"""Length of the text for models that are small enough for it to cost next to nothing."""
MAX_LONG_WORK = 2e9
"""Parameters times tokens."""
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 4e-3, torch.float16: 1e-3}
"""What rounding may change, as a share of what other tokens change in their own scores."""
NOISE_FACTOR = 8.0
"""How many times the difference between two rows that are the same a difference has to be to mean something."""

Ids = npt.NDArray[np.int64]


class ScoreChanges(NamedTuple):
    """Nats by which a token's score changes though the text up to it stays the same; 0.0 within rounding."""

    at_random: float
    """When the same text is scored again."""
    with_later_tokens: float


def find_changes(
    logits: Callable[[Ids], Tensor],
    *,
    vocabulary_size: int,
    longest: int,
    num_parameters: int,
    dtype: torch.dtype,
    rows_mix: bool,
) -> ScoreChanges:
    """Score one small batch, or three where something changes.

    `logits` gives a batch's logits: token ids [B, T] -> [B, T, V], T at most `longest`. `rows_mix`: what one row holds
    may change another one's scores, which a single batch would not show.
    """
    if longest < 2:
        return ScoreChanges(0.0, 0.0)
    length, tolerance = _choose_length(longest, num_parameters), TOLERANCES[dtype]
    cuts = [cut for cut in CUTS if cut < length] or [1]
    rows = _make_rows(vocabulary_size, length, cuts)

    def score(batch: Ids) -> Tensor:
        return logits(batch).float().log_softmax(-1)

    state = _random_state()
    first, *others = score(rows)
    behind = max(_size(other[cut:], first[cut:]) for cut, other in zip(cuts, others, strict=True))
    pairs = [(other[:cut], first[:cut]) for cut, other in zip(cuts, others, strict=True)]
    draws = not torch.equal(state, _random_state())
    if not (rows_mix or draws or any(_size(*pair) > tolerance * behind for pair in pairs)):
        return ScoreChanges(0.0, 0.0)
    same, again = (score(np.tile(rows[0], (len(rows), 1))) for _ in range(2))
    chances = [*((row, same[0]) for row in same[1:]), (again, same)]
    chance = max(_size(*pair) for pair in chances)
    if chance > tolerance * behind:
        return ScoreChanges(max(_largest(*pair) for pair in chances), 0.0)
    pairs.append((same[0, : cuts[0]], first[: cuts[0]]))
    least = max(tolerance * behind, NOISE_FACTOR * chance)
    return ScoreChanges(0.0, max((_largest(*pair) for pair in pairs if _size(*pair) > least), default=0.0))


def require_causal(score_changes: Callable[[], ScoreChanges], name: str) -> None:
    """Raise ModelError where the model cannot score a text, scores at random, or tokens see what comes after them."""
    try:
        changes = score_changes()
    except (ModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a model that is no causal language model, or a strange adapter, meets
        message = " ".join(str(error).split())[:300]
        raise ModelError(f"{name}: it cannot score a text: {message or type(error).__name__}") from None
    if changes.at_random:
        raise ModelError(
            f"{name}: its scores are random: of the same text, scored twice, they differ by up to "
            f"{changes.at_random:.2g} nats; give one that draws nothing at random when it scores (of PVeRA, with "
            "sample_at_inference: false in adapter_config.json)"
        )
    if changes.with_later_tokens:
        raise ModelError(
            f"{name}: the scores of tokens change by up to {changes.with_later_tokens:.2g} nats with the tokens after "
            "them, so they are not those of a causal language model; accepted are decoders (GPT-2, Llama), not "
            "encoders or masked language models (BERT), and adapters that do not look ahead either"
        )


def _choose_length(longest: int, num_parameters: int) -> int:
    is_small = (1 + len(CUTS)) * NUM_LONG_TOKENS * num_parameters <= MAX_LONG_WORK
    wanted = min(NUM_LONG_TOKENS, longest // 2) if is_small else 0  # some positions may be taken, as RoBERTa's are
    return min(max(wanted, NUM_TOKENS), longest)


def _make_rows(vocabulary_size: int, length: int, cuts: list[int]) -> Ids:
    """A text, then the text with every token replaced from each of the cuts on: [1 + cuts, length]."""
    # Special tokens, which may stand for padding or images, lie at a vocabulary's ends.
    low, high = vocabulary_size // 8, max(vocabulary_size // 2, vocabulary_size // 8 + 2)
    draw = np.random.default_rng(0)
    text = draw.integers(low, high, size=length)
    rows = np.tile(text, (1 + len(cuts), 1))
    for row, cut in zip(rows[1:], cuts, strict=True):
        row[cut:] = low + (text[cut:] - low + draw.integers(1, high - low, size=length - cut)) % (high - low)
    return rows


def _random_state() -> Tensor:
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    return torch.cat(states)


def _size(one: Tensor, other: Tensor) -> float:
    """Root mean square of the differences."""
    return float(_difference(one, other).square().mean().sqrt())


def _largest(one: Tensor, other: Tensor) -> float:
    return float(_difference(one, other).abs().max())


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """Nats; zero where they are not finite."""
    return torch.nan_to_num(one - other, 0.0, 0.0, 0.0)
