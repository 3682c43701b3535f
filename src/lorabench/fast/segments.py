"""Attention within segments for Transformers' own modules: a batch laid flat goes through them without a mask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lorabench.core.device import upload
from lorabench.fast.attention import Heads, Segments
from lorabench.fast.choice import attend_flat

_NAME = "lorabench_segments"
_SEGMENTS: ContextVar[Segments] = ContextVar("segments")


@contextmanager
def attention_within(model: Any, bounds: npt.NDArray[np.int32]) -> Iterator[None]:
    """The model, which `can_pack`, takes one flat batch [1, T]: tokens [bounds[i], bounds[i + 1]) see one another.

    Windows and soft caps are those that its layers ask for. A mask is neither made nor looked at.
    """
    _register()
    (there,) = upload([bounds.astype(np.int64)], model.device)
    config, token = model.config, _SEGMENTS.set(Segments(bounds, None, there.int()))
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _SEGMENTS.reset(token)


@cache
def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As Transformers calls it: queries [1, heads, T, width] -> [1, T, heads, width]."""
    del module, attention_mask, dropout, others  # a frozen base has no dropout
    width = query.shape[-1]
    factor = width**-0.5 if scaling is None else float(scaling)
    heads = Heads(query.shape[1], key.shape[1], width, factor, "separate", sliding_window, softcap)
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return attend_flat(query, key, value, heads, _SEGMENTS.get())[None], None
