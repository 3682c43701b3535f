"""Gradient checkpointing: of a layer only its inputs are kept; the backward pass computes it anew (Chen et al. 2016).

The second time is the first one bit for bit: the same operations, and dropout drawn by the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.utils.checkpoint import checkpoint

from lorabench.fast.dropout import Draws, current_draws, drawn_by

Surroundings = Callable[[Draws | None], AbstractContextManager[None]]
"""What a layer is computed in, given what its dropout is drawn by."""


def checkpointed(
    function: Callable[..., Any], *inputs: Any, surroundings: Surroundings = drawn_by, **options: Any
) -> Any:
    """`function(*inputs, **options)`; what its backward pass needs is computed once more, in `surroundings`, then."""
    draws = current_draws()
    again = surroundings(None if draws is None else draws.copy())
    return checkpoint(function, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), again), **options)
