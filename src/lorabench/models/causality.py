"""Tests that a model is causal: that no token's score changes when only what comes after it changes.

The same targets are scored twice, after inputs that agree up to a cut. Before the cut the scores must be the same, but
for rounding. Two neighbouring cuts are tried, since a model that looks ahead within blocks shows it at one of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lorabench.tokens.packing import IGNORED, PackedBatch

NUM_TOKENS = 10
CUTS = (4, 5)
NUM_LONG_TOKENS = 160
"""Length of a second text, for models that are small enough for it to cost next to nothing."""
MAX_LONG_WORK = 2e9
"""Parameters times tokens."""
NUM_NEIGHBOUR_TOKENS = 2
"""Length of the documents before and behind, where documents share a pass."""
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.02}
"""Nats by which rounding may change a score: experts round otherwise when other tokens come to them."""

Ids = npt.NDArray[np.int64]


def find_lookahead(
    score: Callable[[PackedBatch], Tensor],
    *,
    vocabulary_size: int,
    longest: int,
    num_parameters: int,
    packs: bool,
    dtype: torch.dtype,
) -> float:
    """Nats by which later tokens, or other documents of the pass, change a token's score; 0.0 within rounding.

    `score` gives the nats of each target of a batch, [T]; `longest` is the longest document that the model takes.
    """
    if longest < 2:
        return 0.0
    draw = np.random.default_rng(0)
    # Special tokens, which may stand for padding or images, lie at a vocabulary's ends.
    low, high = vocabulary_size // 8, max(vocabulary_size // 2, vocabulary_size // 8 + 2)
    trials: list[tuple[int, tuple[int, ...]]] = [(min(NUM_TOKENS, longest), CUTS)]
    if not packs and longest > 2 * NUM_TOKENS and 2 * NUM_LONG_TOKENS * num_parameters <= MAX_LONG_WORK:
        trials.append((min(NUM_LONG_TOKENS, longest // 2), CUTS[:1]))
    changes = [0.0]

    def nats(inputs: Ids, targets: Ids) -> npt.NDArray[np.float64]:
        neighbours = [draw.integers(low, high, size=NUM_NEIGHBOUR_TOKENS) for _ in range(2)] if packs else []
        batch = _make_batch(inputs, targets, neighbours)
        start = NUM_NEIGHBOUR_TOKENS if packs else 0
        return score(batch).detach().cpu().double().numpy()[start : start + len(inputs)]

    for length, cuts in trials:
        inputs, targets = (draw.integers(low, high, size=length) for _ in range(2))
        before = nats(inputs, targets)
        for cut in (cut for cut in cuts if cut < length):
            other = inputs.copy()
            shifts = draw.integers(1, high - low, size=length - cut)
            other[cut:] = low + (inputs[cut:] - low + shifts) % (high - low)
            difference = np.abs(nats(other, targets) - before)[:cut]
            changes += difference[np.isfinite(difference)].tolist()
    largest = max(changes)
    return largest if largest > TOLERANCES[dtype] else 0.0


def _make_batch(inputs: Ids, targets: Ids, neighbours: list[Ids]) -> PackedBatch:
    """One row: a neighbour, the document, another neighbour; or the document alone."""
    documents = [neighbours[0], inputs, neighbours[1]] if neighbours else [inputs]
    unscored = np.full(NUM_NEIGHBOUR_TOKENS, IGNORED)
    lengths = [len(document) for document in documents]
    return PackedBatch(
        input_ids=np.concatenate(documents),
        targets=np.concatenate([unscored, targets, unscored]) if neighbours else targets,
        position_ids=np.concatenate([np.arange(length) for length in lengths]),
        segment_starts=np.cumsum([0, *lengths]).astype(np.int32),
        document_index=np.arange(len(documents), dtype=np.int32),
        num_rows=1,
    )
