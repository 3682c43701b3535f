"""Transformers (and PEFT), on the processor or a GPU: merged folders, and the adapter on its base in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorabench.deploy.engine import Runtime, Scorer, Source

if TYPE_CHECKING:
    import torch

    from lorabench.models.base import FrozenBase, Precision
    from lorabench.models.quantized import Quantization
    from lorabench.runs.answering import Answering
    from lorabench.scoring.answers import Answers
    from lorabench.tokens.packing import PackedBatch

_CACHE_NAMES = ("cache", "past_key_values")
"""What Transformers calls keys and values that are kept, the newest name first."""


class _Scorer:
    """A frozen model, scored as runs score theirs."""

    def __init__(self, base: FrozenBase) -> None:
        self.device: torch.device = base.device
        self._base = base

    @property
    def longest_text(self) -> int:
        """See Scorer."""
        return self._base.longest_text

    def answers(self, asked: Answering) -> Answers:
        """As runs' adapters answer."""
        shared = replace(asked.work.shared, base=self._base)
        return replace(asked, work=replace(asked.work, shared=shared)).answers(f"answering {asked.split}")

    def token_nll(self, batch: PackedBatch) -> torch.Tensor:
        """See Scorer."""
        return self._base.token_nll(batch)

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """See Scorer."""
        import torch

        with torch.inference_mode():
            found = self._base.model(input_ids=torch.tensor([list(ids)], device=self.device)).logits[0]
        logits: npt.NDArray[np.float32] = found[-len(ids) :].float().cpu().numpy()
        return logits


class _Runtime:
    """A model with the library's own key-value cache."""

    def __init__(self, model: Any, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        tensors = (*model.parameters(), *model.buffers())
        self.weight_bytes: int = sum(tensor.nbytes for tensor in tensors)
        self._model = model
        inner = model.get_base_model() if hasattr(model, "peft_type") else model
        self._cache_name = next(name for name in _CACHE_NAMES if name in signature(inner.forward).parameters)
        self._cache: Any = None
        self._last: Any = None

    @property
    def latest(self) -> list[int]:
        """See Runtime."""
        tokens: list[int] = self._last[:, 0].tolist()
        return tokens

    def prefill(self, ids: Sequence[int], num_sequences: int) -> None:
        """See Runtime."""
        import torch

        self._cache = None
        self._advance(torch.tensor([list(ids)] * num_sequences, device=self._model.device))

    def step(self) -> None:
        """See Runtime."""
        self._advance(self._last)

    def _advance(self, ids: torch.Tensor) -> None:
        import torch

        cache = {self._cache_name: self._cache}
        with torch.inference_mode():
            output = self._model(input_ids=ids, use_cache=True, logits_to_keep=1, **cache)
        self._cache = getattr(output, self._cache_name)
        self._last = output.logits[:, -1].argmax(dim=-1, keepdim=True)


class TransformersEngine:
    """See Engine."""

    packages: tuple[str, ...] = ("torch", "transformers", "peft")
    """Whose versions are recorded."""

    def versions(self) -> dict[str, str]:
        """Of its parts."""
        return {name: version(name) for name in self.packages}

    def require(self) -> None:
        """Nothing: it is always there."""

    def check_device(self, device: str) -> None:
        """It runs wherever torch does."""

    def prepare(self) -> None:
        """Import what loading needs, so that it is not timed."""
        import peft
        import transformers

        assert peft, transformers

    def scorer(self, source: Source) -> Scorer:
        """See Engine."""
        return _Scorer(self.load(source))

    def runtime(self, source: Source) -> Runtime:
        """See Engine."""
        base = self.load(source)
        config = base.model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        return _Runtime(base.model, int(limit or 8192))

    def load(self, source: Source) -> FrozenBase:
        """The form as a frozen model, its adapter attached where it is one."""
        precision: Precision = "fp32" if source.form in ("merged:fp32", REFERENCE) else "bf16"
        return load_form(source, precision)


def load_form(source: Source, precision: Precision, quantization: Quantization = "none") -> FrozenBase:
    """A merged folder as it is; or the adapter on its base, which is held as `quantization` says."""
    import torch

    from lorabench.methods.saved import attach_saved
    from lorabench.models.base import load_base

    torch.set_num_threads(source.threads)
    is_whole = (source.folder / "config.json").is_file()
    folder = source.folder if is_whole else source.base_folder
    base = load_base(
        folder, precision=precision, device=source.device, quantization="none" if is_whole else quantization
    )
    if not is_whole:  # an adapter, or every weight of the base
        attach_saved(base, source.folder)
    return base


REFERENCE = "reference"
"""The name under which the unquantised adapter is loaded: in float32, unmerged."""
ENGINE = TransformersEngine()
