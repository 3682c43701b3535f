"""Attention over all documents of a flat batch in one call.

torch's kernel for documents of different lengths reads the batch as it lies, in half precision on cards from sm80 on.
Elsewhere documents are laid into rows as long as the longest, with one mask for all layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from lorabench.core.device import upload
from lorabench.fast.attention import Heads, Segments
from lorabench.fast.differentiable import apply

Capability = tuple[int, int]
VARLEN_SINCE: Capability = (8, 0)
WIDEST_VARLEN = 256
SMALL_CARDS = frozenset({(8, 6), (8, 9), (12, 0), (12, 1)})
"""Too little memory beside their units for the backward pass of heads 193 to 224 wide."""
ROW_ALIGNMENT = 16
"""Rows of a mask begin at multiples of it, or torch copies the mask in each layer."""


@cache
def capability_of(device: torch.device) -> Capability:
    """What the card can do; (0, 0) where this torch was built without the kernel. Meta tensors stand for an H100's."""
    if device.type == "meta":
        return 9, 0
    return torch.cuda.get_device_capability(device) if torch.backends.cuda.is_flash_attention_available() else (0, 0)


@cache
def _varlen() -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """The kernel and its parameters, which change from one torch to the next."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn, inspect.signature(varlen_attn).parameters


def takes_varlen(dtype: torch.dtype, heads: Heads, longest: int, capability: Capability) -> bool:
    """Whether torch's kernel for documents of different lengths computes this attention here."""
    if dtype not in (torch.bfloat16, torch.float16) or capability < VARLEN_SINCE or heads.soft_cap is not None:
        return False
    if heads.width % 8 or heads.width > WIDEST_VARLEN or (capability in SMALL_CARDS and 192 < heads.width <= 224):
        return False
    parameters = _varlen()[1]
    has_window = heads.window is not None and heads.window < longest
    has_scale = heads.factor > 0.0 and heads.factor != heads.width**-0.5
    return not (has_window and "window_size" not in parameters) and not (has_scale and "scale" not in parameters)


def attend_varlen(query: Tensor, key: Tensor, value: Tensor, heads: Heads, segments: Segments) -> Tensor:
    """Queries [T, heads, width], keys and values [T, key heads, width] -> [T, heads, width]."""
    attention, parameters = _varlen()
    bounds, longest = segments.bounds_on(query.device), segments.longest
    before = -1 if heads.window is None or heads.window >= longest else heads.window - 1
    wanted = {
        "scale": heads.factor,
        "window_size": (before, 0),
        "is_causal": True,  # until torch 2.10, in place of the window
        "enable_gqa": heads.num_query_heads != heads.num_key_heads,  # before torch 2.12 nothing has to be said
    }
    options = {name: value for name, value in wanted.items() if name in parameters}
    attended: Tensor = attention(query, key, value, bounds, bounds, longest, longest, **options)
    return attended


@dataclass(frozen=True)
class Rows:
    """Documents laid into rows of one length."""

    num_rows: int
    length: int
    places: Tensor | None
    """Of each token, int64 [T], in the rows laid end to end; None where they lie there already."""
    owners: Tensor | None
    """Whose each place is, int64 [rows, length]; -1 where it is nobody's."""

    @classmethod
    def of(cls, starts: npt.NDArray[np.int32], device: torch.device) -> Rows:
        """The longest documents first, each in the first row that has room."""
        lengths = np.diff(starts)
        longest = int(lengths.max())
        if bool((lengths == longest).all()):
            return cls(len(lengths), longest, None, None)
        row_length = -(-longest // ROW_ALIGNMENT) * ROW_ALIGNMENT
        first_places, num_rows = _first_fit(lengths, row_length)
        places = np.repeat(first_places - starts[:-1], lengths) + np.arange(int(starts[-1]))
        owners = np.full(num_rows * row_length, -1, dtype=np.int64)
        owners[places] = np.repeat(np.arange(len(lengths)), lengths)
        there, whose = upload([places, owners], device)
        return cls(num_rows, row_length, there, whose.view(num_rows, row_length))

    def lay(self, flat: Tensor) -> Tensor:
        """[T, heads, width] -> [rows, heads, length, width]."""
        laid: Tensor = flat if self.places is None else apply(_Lay, flat, self.places, self.num_rows * self.length)
        return laid.reshape(self.num_rows, self.length, *laid.shape[1:]).transpose(1, 2)

    def take(self, laid: Tensor) -> Tensor:
        """The inverse of `lay`."""
        flat = laid.transpose(1, 2).flatten(0, 1)
        taken: Tensor = flat if self.places is None else apply(_Take, flat, self.places)
        return taken

    def seen(self, window: int | None, device: torch.device) -> Tensor | None:
        """Which places see which, bool [rows or 1, 1, length, length]; None where it is all that came before."""
        if self.owners is None and window is None:
            return None
        earlier = torch.ones(self.length, self.length, dtype=torch.bool, device=device).tril()
        earlier = earlier if window is None else earlier.triu(1 - window)
        if self.owners is None:
            return earlier[None, None]
        return ((self.owners[:, :, None] == self.owners[:, None, :]) & earlier)[:, None]


def attend_padded(query: Tensor, key: Tensor, value: Tensor, heads: Heads, segments: Segments) -> Tensor:
    """As `attend_varlen`, for every card, type and soft cap."""
    made, window = segments.made, heads.window
    if "rows" not in made:
        made["rows"] = Rows.of(segments.starts, query.device)
    rows: Rows = made["rows"]
    window = None if window is None or window >= segments.longest else window
    if ("seen", window) not in made:
        made["seen", window] = rows.seen(window, query.device)
    seen: Tensor | None = made["seen", window]
    group = heads.num_query_heads // heads.num_key_heads
    query, key, value = rows.lay(query), _for_each_query(rows.lay(key), group), _for_each_query(rows.lay(value), group)
    if heads.soft_cap is None:
        bias = None if seen is None else _bias(seen, window, query.dtype, made)
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, is_causal=bias is None, scale=heads.factor
        )
    else:
        attended = _capped(query, key, value, heads.factor, heads.soft_cap, seen)
    return rows.take(attended)


def _bias(seen: Tensor, window: int | None, dtype: torch.dtype, made: dict[Any, Any]) -> Tensor:
    """What torch would make of the mask in every layer."""
    if ("bias", window, dtype) not in made:
        made["bias", window, dtype] = torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, -torch.inf)
    bias: Tensor = made["bias", window, dtype]
    return bias


def _capped(query: Tensor, key: Tensor, value: Tensor, factor: float, cap: float, seen: Tensor | None) -> Tensor:
    """No fused kernel knows a soft cap: the scores exist, as they do in Transformers."""
    if seen is None:
        length = query.shape[2]
        seen = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    scores = cap * torch.tanh(query @ key.transpose(2, 3) * (factor / cap))
    weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1, dtype=torch.float32)
    return weights.to(value.dtype) @ value


def _for_each_query(heads: Tensor, group: int) -> Tensor:
    """Keys or values [rows, key heads, length, width] once for each query head: torch's kernel for any type knows no
    groups."""
    return heads if group == 1 else heads[:, :, None].expand(-1, -1, group, -1, -1).flatten(1, 2)


def _first_fit(lengths: npt.NDArray[np.int32], row_length: int) -> tuple[npt.NDArray[np.int64], int]:
    """Where each document begins in rows laid end to end, and how many rows there are."""
    places = np.zeros(len(lengths), dtype=np.int64)
    rooms: list[int] = []
    for document in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[document])
        row = next((row for row, room in enumerate(rooms) if room >= length), len(rooms))
        if row == len(rooms):
            rooms.append(row_length)
        places[document] = (row + 1) * row_length - rooms[row]
        rooms[row] -= length
    return places, len(rooms)


class _Lay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, places: Tensor, num_places: int) -> Tensor:
        ctx.save_for_backward(places)
        return flat.new_zeros(num_places, *flat.shape[1:]).index_copy_(0, places, flat)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        return gradients[0].index_select(0, places), None, None


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, laid: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.num_places = len(laid)
        return laid.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        (d_taken,) = gradients
        return d_taken.new_zeros(ctx.num_places, *d_taken.shape[1:]).index_copy_(0, places, d_taken), None
