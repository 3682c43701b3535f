"""Documents side by side in one pass of a model whose attention is not ours: of about one length, padded behind.

Nothing that comes after a token changes its score in a causal model, recurrent ones included, so padding behind a
document needs no mask; and rows of a batch know nothing of one another in Transformers' own modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lorabench.fast.known import LENGTH_DEPENDENT_ROTATIONS, inner_model, is_changed, rotation_kinds

Sharing = Literal["documents", "documents of one length", "one document"]
"""What goes through one pass."""
_PADDING_SHARE = 0.25
_FREE_PADDING = 16
"""Tokens behind a document that cost less than a pass of its own."""
_OWN = ("torch.nn.", "transformers.", "peft.tuners.lora.")


class Group(NamedTuple):
    """Documents of one pass: their numbers int64 [B], places int64 [B, L] in the flat batch, and real bool [B, L]:
    where it is no padding."""

    documents: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    real: npt.NDArray[np.bool_]


def sharing_of(model: Any) -> Sharing:
    """What may go through one pass of Transformers' model, or of PEFT's around it."""
    from peft.tuners.lora.variants import DoraLinearVariant

    model = inner_model(model)
    modules = list(model.modules())
    variants = [variant for module in modules for variant in getattr(module, "lora_variant", {}).values()]
    if (
        hasattr(model, "peft_type")
        or any(is_changed(module) or not type(module).__module__.startswith(_OWN) for module in modules)
        or any(type(variant) is not DoraLinearVariant for variant in variants)
    ):
        return "one document"
    kinds = {kind for module in modules for kind in rotation_kinds(module)}
    return "documents of one length" if kinds & LENGTH_DEPENDENT_ROTATIONS else "documents"


def grouped(bounds: npt.NDArray[np.int32], sharing: Sharing, max_tokens: int) -> Iterator[Group]:
    """Documents [bounds[i], bounds[i + 1]) in groups of at most `max_tokens` with padding, or of one document."""
    lengths = np.diff(bounds)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        least = longest if sharing != "documents" else longest - max(_FREE_PADDING, int(_PADDING_SHARE * longest))
        most = 1 if sharing == "one document" else max(1, max_tokens // longest)
        chosen = order[start : start + most]
        chosen = chosen[lengths[chosen] >= least]
        place = np.arange(longest)
        last = lengths[chosen][:, None] - 1
        yield Group(chosen, bounds[chosen][:, None] + np.minimum(place, last), place <= last)
        start += len(chosen)


def forget_lengths(model: Any) -> None:
    """Let the next pass have its own frequencies: dynamic rotary embeddings keep those of a longer one before it."""
    for module in model.modules():
        if "dynamic" in rotation_kinds(module):
            module.max_seq_len_cached = module.original_max_seq_len
            for name, frequencies in list(module.named_buffers(recurse=False)):
                if name.endswith("original_inv_freq"):
                    setattr(module, name.replace("original_", ""), frequencies.clone())
