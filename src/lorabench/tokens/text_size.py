"""Remembers how large a budget's training text turned out to be, so that later plans are exact instead of estimated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from lorabench.core.canonical import fingerprint
from lorabench.core.storage import cache_root, recall, remember


@dataclass(frozen=True)
class TextQuestion:
    """Which text, read with which tokenizer: names with their revisions, budgets in bytes."""

    model: str
    model_revision: str
    dataset: str
    dataset_revision: str
    text_field: str
    train_bytes: int
    largest_train_bytes: int
    """The largest budget of the experiment: how much of a corpus was drawn from may depend on it."""

    @property
    def _path(self) -> Path:
        return cache_root() / "text_sizes" / f"{fingerprint(asdict(self))[:32]}.json"

    def remember(self, size: TextSize) -> None:
        """Keep the answer. A cache that cannot be written is done without."""
        if self.answer() == size:
            return
        remember(self._path, asdict(size))

    def answer(self) -> TextSize | None:
        """What was seen when this text was last tokenised; None where it never was."""
        values = recall(self._path)
        return None if values is None else TextSize(**values)


@dataclass(frozen=True)
class TextSize:
    """Bytes of the documents chosen, and their tokens."""

    num_bytes: int
    num_tokens: int
