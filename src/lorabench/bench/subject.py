"""What is measured: a base model, with its own weights or random ones, and text for it."""

from __future__ import annotations

import re
import time
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lorabench.core.device import Device
from lorabench.corpora.documents import make_document
from lorabench.models.base import FrozenBase, Precision, import_architecture, load_base
from lorabench.models.locate import locate_model
from lorabench.models.planning import plan_model
from lorabench.models.shape import ModelShape, read_model_shape
from lorabench.samplepack.stories import NUM_STORIES, write_stories
from lorabench.training.loop import TrainingText

if TYPE_CHECKING:
    from lorabench.core.progress import Progress
    from lorabench.tokens.packing import Tokens
    from lorabench.tokens.tokenizer import Tokeniser

TOKENS_PER_STORY = 150
"""At least."""
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass
class Subject:
    """A loaded base and what is needed to measure it."""

    name: str
    weights: str
    """`its own`, or `random`."""
    shape: ModelShape
    base: FrozenBase
    device: Device
    load_seconds: float
    """Without importing libraries, with compiling kernels where they were not kept."""
    _tokeniser: Tokeniser | None

    def training_text(self, num_rows: int, context_length: int) -> TrainingText:
        """`num_rows` documents of exactly one window each, cut from stories; the same ones each time.

        A model without a tokenizer gets a number per word, so that ids are as unevenly spread as in real text.
        """
        wanted = num_rows * context_length
        ids = np.resize(self._ids(wanted), wanted)
        prefix = 0 if self._tokeniser is None else self._tokeniser.prefix_token_id
        return TrainingText(np.split(ids, num_rows), prefix)

    def _ids(self, wanted: int) -> Tokens:
        """Ids of stories one after the other, about as many as are wanted."""
        texts = list(write_stories(min(NUM_STORIES, 1 + wanted // TOKENS_PER_STORY)))
        if self._tokeniser is not None:
            return np.concatenate(self._tokeniser.encode([make_document(text) for text in texts]))
        words = [word for text in texts for word in _WORD.findall(text)]
        return np.array([zlib.crc32(word.encode()) % self.shape.vocabulary_size for word in words], dtype=np.int32)


def load_subject(
    reference: str, *, precision: Precision, random_weights: bool, device: Device, progress: Progress | None = None
) -> Subject:
    """Load a model to be measured. Raises UnknownNameError, ModelError or InputError."""
    plan = plan_model(reference)
    if random_weights:
        from lorabench.models.random_weights import load_random

        started = time.perf_counter()
        base = load_random(plan, precision=precision, device=str(device))
        seconds = time.perf_counter() - started
        return Subject(plan.name, "random", plan.shape, base, device, seconds, _tokeniser_of(plan.folder))
    location = locate_model(reference, progress=progress)
    import_architecture(location.folder)
    started = time.perf_counter()
    base = load_base(location.folder, precision=precision, device=str(device))
    seconds = time.perf_counter() - started
    found = replace(plan, shape=read_model_shape(location.folder), folder=location.folder)
    return Subject(plan.name, "its own", found.shape, base, device, seconds, _tokeniser_of(found.folder))


def _tokeniser_of(folder: Path | None) -> Tokeniser | None:
    from lorabench.tokens.tokenizer import Tokeniser

    return None if folder is None else Tokeniser(folder)
