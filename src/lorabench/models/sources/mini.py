"""Mini models: small models of published architectures, built and pretrained on this machine."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Literal

from lorabench.core.catalog import Revision
from lorabench.core.progress import Progress
from lorabench.corpora.store import load_corpus
from lorabench.models.made import MadeModel
from lorabench.samplepack.mini import CORPORA, HEAD_WIDTH, MiniShape, build_mini


class MiniModel(MadeModel):
    """A model of about two million parameters. Building one takes about a minute on two cores."""

    source: Literal["mini"]
    revision: Revision
    """Of the recipe."""

    @property
    def head_width(self) -> int:
        """Width of an attention head."""
        return HEAD_WIDTH

    @property
    def recipe_version(self) -> int:
        """The recipe's own revision is part of the entry."""
        return 1

    def expected_revision(self) -> str:
        """The recipe's."""
        return self.revision

    def make(self, folder: Path, progress: Progress | None = None) -> None:
        """Train the tokenizer and pretrain the model on the sample pack's training splits."""
        texts = {}
        for name in CORPORA:
            corpus = load_corpus(name, max_train_bytes=None, progress=progress)
            texts[name] = [document.text for document in corpus.splits["train"]]
        build_mini(self.mini_shape(), texts, folder, progress)

    def mini_shape(self) -> MiniShape:
        """The sizes that are built."""
        return MiniShape(**{field.name: getattr(self, field.name) for field in fields(MiniShape)})

    def note_on_weights(self, weights_sha256: str) -> str:
        """Which weights they are: another machine's arithmetic may make others."""
        return f"{self.weights_note or 'a mini model'} (weights {weights_sha256[:16]})"


SOURCE = MiniModel
