"""What a corpus is to everything downstream: documents in three splits, and the facts about them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from lorabench.core.errors import InputError, near_matches

Split = Literal["train", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(Split)
MIN_DOCUMENTS = 10
"""A corpus that is split here needs at least so many."""
REPLACEMENT = "\ufffd"
_UNUSABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says. `role`: system, user, assistant, tool; prompt and completion of rows that are two texts."""

    role: str
    content: str
    learned: bool = False
    """Whether it is an answer: what is trained on and scored."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `hash` is the SHA-256 of its UTF-8 bytes in hex, `num_words` the result of `count_words`.

    Of a conversation, `text` is what is said apart from system prompts, and `hash` that of all turns with their roles.
    """

    text: str
    hash: str
    num_bytes: int
    num_words: int
    turns: tuple[Turn, ...] | None = None
    """Of a conversation, which is never cut; None of plain text."""

    @property
    def answers(self) -> list[str]:
        """Of a conversation: the answers' own text, without white space around it."""
        return [turn.content.strip() for turn in self.turns or () if turn.learned]

    @property
    def scored_bytes(self) -> int:
        """Of the text that is scored: all of it, or a conversation's answers."""
        return self.num_bytes if self.turns is None else sum(len(answer.encode("utf-8")) for answer in self.answers)

    @property
    def scored_words(self) -> int:
        """Of the text that is scored."""
        return self.num_words if self.turns is None else sum(map(count_words, self.answers))


class CorpusInfo(BaseModel):
    """Where a corpus came from and what is in it; goes into every record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    revision: str
    pinned: bool
    licence: str | None
    synthetic: bool
    domain: str | None
    contaminates: tuple[str, ...]
    """Models that were trained on this text."""
    notes: str | None
    num_documents: dict[str, int]
    num_bytes: dict[str, int]
    """By split."""
    removed: dict[str, int]
    """Documents removed, by reason: empty, exact_duplicates, near_duplicates."""
    near_duplicates: Literal["remove", "keep"] = "remove"
    """How near copies were treated."""
    format: str = "text"
    """Of its rows: `text`, or that of conversations (`lorabench.corpora.conversations.FORMATS`)."""
    num_repaired: int = 0
    """Documents in which NUL characters or lone surrogates became U+FFFD."""
    content_sha256: str
    """Of the documents' hashes, in order, split by split."""
    validation_lengths: tuple[int, ...] = ()
    """Bytes of the validation documents, or of every n-th of them, at most a thousand: for plans."""


@dataclass(frozen=True)
class Corpus:
    """`splits` holds train, validation and test; documents are in the order of their hashes."""

    name: str
    revision: str
    splits: dict[str, list[Document]]
    info: CorpusInfo


def make_document(text: str) -> Document:
    """`text` exactly as it is, with its hash and sizes. It must be encodable: see `repair`."""
    encoded = text.encode("utf-8")
    return Document(text, hashlib.sha256(encoded).hexdigest(), len(encoded), count_words(text))


def make_conversation(turns: Sequence[Turn]) -> Document:
    """The document of a conversation, its contents being encodable."""
    text = "\n\n".join(turn.content for turn in turns if turn.role != "system")
    told = json.dumps([[turn.role, turn.content, turn.learned] for turn in turns], ensure_ascii=False)
    digest = hashlib.sha256(told.encode("utf-8")).hexdigest()
    return Document(text, digest, len(text.encode("utf-8")), count_words(text), tuple(turns))


def count_words(text: str) -> int:
    """The pieces between runs of white space, as EleutherAI's lm-evaluation-harness counts them.

    Before white space at the beginning, and after such at the end, there is an empty piece, which counts; so an empty
    text has one.
    """
    return max(1, len(text.split()) + text[:1].isspace() + text[-1:].isspace())


def repair(text: str) -> str:
    """`text` with each NUL character and each lone surrogate, which tools cannot carry, replaced by U+FFFD."""
    return _UNUSABLE.sub(REPLACEMENT, text)


def check_split(split: str) -> None:
    """Raise InputError, with near matches, where there is no such split."""
    if split not in SPLITS:
        raise InputError(f"split: there is no {split!r}; accepted: {', '.join(SPLITS)}.{near_matches(split, SPLITS)}")
