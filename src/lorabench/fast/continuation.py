"""Continuations of prompts, token by token, with the fast path's passes and a cache of keys and values.

Prompts are read as one flat batch. After that each row adds one token at a time, at the same place of the cache in all
rows: shorter prompts begin later in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lorabench.core.device import upload
from lorabench.fast.attention import Heads, Rotation, rotate
from lorabench.fast.forward import Decoder, Layer, Uploaded
from lorabench.fast.kernels import Product
from lorabench.tokens.packing import Segment, make_batch

Choose = Callable[[Tensor], Tensor]
"""Logits float32 [N, V] -> the next tokens, int64 [N]."""
STEPS_BETWEEN_LOOKS = 16
"""A GPU is asked this often whether all rows have ended: each time it is waited for."""


def can_continue(decoder: Decoder, num_tokens: int) -> bool:
    """Whether texts of so many tokens are continued here: a rotary embedding that changes on the way is not."""
    rotaries = [layer.rotary for layer in decoder.layers if layer.rotary is not None]
    return all(rotary.long_frequencies is None or num_tokens <= rotary.longest for rotary in rotaries)


def continue_prompts(
    decoder: Decoder, prompts: Sequence[Sequence[int]], choose: Choose, *, max_new_tokens: int, end_ids: Sequence[int]
) -> Tensor:
    """What follows N prompts: int64 [N, <= max_new_tokens]. A row's tokens after one of `end_ids` mean nothing."""
    with torch.no_grad():
        cache = _Cache.of(decoder, prompts, max_new_tokens)
        tokens = [choose(_logits(decoder, cache.read(decoder, prompts)))]
        ends = torch.tensor(list(end_ids), dtype=torch.int64, device=tokens[0].device)
        ended = torch.isin(tokens[0], ends)
        looks = 1 if ended.device.type == "cpu" else STEPS_BETWEEN_LOOKS
        for step in range(1, max_new_tokens):
            if end_ids and step % looks == 0 and bool(ended.all()):
                break
            tokens.append(choose(_logits(decoder, cache.add(decoder, tokens[-1]))))
            ended |= torch.isin(tokens[-1], ends)
        return torch.stack(tokens, 1)


def _logits(decoder: Decoder, hidden: Tensor) -> Tensor:
    """Float32 [N, V] of hidden states [N, width]."""
    head = decoder.head
    (logits,) = decoder.kernels.multiply([Product(((hidden, head.weight_like(hidden).t()),))])
    logits = logits[:, : head.vocabulary_size]
    wide = logits.float()
    return wide if head.soft_cap is None else wide.div_(head.soft_cap).tanh_().mul_(head.soft_cap)


@dataclass
class _Cache:
    """Keys and values of N rows, [N, key heads, L, width] per layer; `length` places are taken in all of them."""

    keys: list[Tensor]
    values: list[Tensor]
    starts: Tensor
    """Where each row's prompt begins, int64 [N]."""
    is_even: bool
    """All rows begin at 0."""
    length: int

    @classmethod
    def of(cls, decoder: Decoder, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> _Cache:
        """Room for the prompts and what follows them, with nothing in it."""
        device = decoder.head.weight.device
        lengths = np.array([len(prompt) for prompt in prompts])
        longest = int(lengths.max())
        (starts,) = upload([longest - lengths], device)

        def room() -> list[Tensor]:
            sizes = [(len(prompts), layer.heads.num_key_heads, longest + max_new_tokens - 1, layer.heads.width)
                     for layer in decoder.layers]  # fmt: skip
            return [torch.zeros(size, dtype=decoder.dtype, device=device) for size in sizes]

        return cls(room(), room(), starts, bool((lengths == longest).all()), longest)

    def read(self, decoder: Decoder, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Take the prompts in; hidden states of their last tokens [N, width]."""
        rows = [[Segment(0, np.array([*prompt, 0], dtype=np.int32))] for prompt in prompts]
        there = Uploaded.of(make_batch(rows), self.starts.device)
        segments = decoder.segments(there)
        lengths = np.diff(there.starts).astype(np.int64)
        owners = np.repeat(np.arange(len(prompts)), lengths)
        begins = np.repeat(self.length - lengths, lengths)
        row, last, begin = upload([owners, there.starts[1:].astype(np.int64) - 1, begins], self.starts.device)
        place = begin + there.positions

        def attend(index: int, layer: Layer, projected: tuple[Tensor, ...]) -> Tensor:
            pattern = segments[layer.rotary]
            _, key, value = layer.heads.views(projected)
            self.keys[index][row, :, place] = _turned(key, pattern.rotation)
            self.values[index][row, :, place] = value
            return decoder.kernels.attend(projected, layer.heads, pattern)

        hidden = decoder.through(decoder.embed(there.input_ids, there.positions), attend, training=False)
        return hidden[last]

    def add(self, decoder: Decoder, tokens: Tensor) -> Tensor:
        """Take one more token a row in, int64 [N]; their hidden states [N, width]."""
        place, self.length = self.length, self.length + 1
        positions = place - self.starts
        alone = np.arange(len(tokens) + 1, dtype=np.int32)
        rotaries = {layer.rotary for layer in decoder.layers}
        rotations = {rotary: None if rotary is None else rotary.rotation(positions, alone) for rotary in rotaries}
        masks = {window: self._seen(window) for window in {layer.heads.window for layer in decoder.layers}}

        def attend(index: int, layer: Layer, projected: tuple[Tensor, ...]) -> Tensor:
            query, key, value = layer.heads.views(projected)
            rotation = rotations[layer.rotary]
            self.keys[index][:, :, place] = _turned(key, rotation)
            self.values[index][:, :, place] = value
            keys, values = (kept[index][:, :, : self.length] for kept in (self.keys, self.values))
            return _attend_last(_turned(query, rotation), keys, values, layer.heads, masks[layer.heads.window])

        return decoder.through(decoder.embed(tokens, positions), attend, training=False)

    def _seen(self, window: int | None) -> Tensor | None:
        """Which places the last token of each row sees, bool [N, 1, 1, length]; None where it is all of them."""
        reaches = window is None or window >= self.length
        if self.is_even and reaches:
            return None
        places = torch.arange(self.length, device=self.starts.device)
        seen = places >= self.starts[:, None]
        if window is not None and not reaches:
            seen &= places >= self.length - window
        return seen[:, None, None]


def _turned(heads: Tensor, rotation: Rotation | None) -> Tensor:
    return heads if rotation is None else rotate(heads, rotation)


def _attend_last(query: Tensor, keys: Tensor, values: Tensor, heads: Heads, seen: Tensor | None) -> Tensor:
    """One query a row, [N, query heads, width], over keys and values [N, key heads, L, width] -> [N, heads * width].

    The query heads that share keys stand where a text's tokens would.
    """
    grouped = query.unflatten(1, (heads.num_key_heads, -1))
    if heads.soft_cap is None:
        attended = functional.scaled_dot_product_attention(grouped, keys, values, attn_mask=seen, scale=heads.factor)
        return attended.flatten(1)
    scores = heads.soft_cap * torch.tanh(grouped @ keys.transpose(2, 3) * (heads.factor / heads.soft_cap))
    scores = scores if seen is None else scores.masked_fill(~seen, -torch.inf)
    weights = torch.softmax(scores, -1, dtype=torch.float32)
    return (weights.to(values.dtype) @ values).flatten(1)
