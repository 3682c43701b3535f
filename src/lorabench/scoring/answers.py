"""Answers: what a model writes greedily where a conversation's last answer stands, and how good it is.

A prompt is what stands before that answer where it is trained on and scored, token by token, so that answers and bits
per byte are about one and the same thing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorabench.core.device import release_memory
from lorabench.core.errors import DataError, OutOfMemoryRunError
from lorabench.core.out_of_memory import is_out_of_memory
from lorabench.experiment.workload import ANSWER_ROWS, ANSWER_TOKENS
from lorabench.models.base import FrozenBase
from lorabench.models.continuation import continue_greedily
from lorabench.scoring.metrics import Metric, judge
from lorabench.tokens.packing import ANSWER, Prefix, Tokens, prefix_of

if TYPE_CHECKING:
    import pandas as pd

    from lorabench.corpora.documents import Document
    from lorabench.tokens.chat import Encoded

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What is to be answered of one document."""

    document_hash: str
    prompt: tuple[int, ...]
    """Token ids, the first that nothing predicts included."""
    reference: str
    """The corpus's own answer, without white space around it."""


@dataclass(frozen=True)
class Answers:
    """What a model answered to Q questions, in their order; arrays [Q]."""

    texts: tuple[str, ...]
    num_tokens: npt.NDArray[np.int64]
    is_finished: npt.NDArray[np.bool_]
    """Whether the model ended its answer itself; else it was cut at the most tokens allowed."""

    @property
    def num_cut(self) -> int:
        """Answers that were cut."""
        return int((~self.is_finished).sum())


def questions_of(documents: Sequence[Document], encoded: Encoded) -> list[Question]:
    """One question per conversation: its last answer that is not empty, after all that stands before it."""
    assert encoded.marks is not None
    questions = []
    for place, (document, ids, marks) in enumerate(zip(documents, encoded.tokens, encoded.marks, strict=True)):
        answers = np.flatnonzero(marks == ANSWER)
        breaks = np.flatnonzero(np.diff(answers) > 1)
        start = int(answers[breaks[-1] + 1]) if len(breaks) else int(answers[0])
        reference = next(answer for answer in reversed(document.answers) if answer)
        questions.append(Question(document.hash, _prompt(encoded.prefix, place, ids[:start]), reference))
    return questions


def split_by_room(questions: Sequence[Question], room: int, max_new_tokens: int) -> tuple[list[Question], int]:
    """The questions that leave room for an answer, and how many do not. Raises DataError where none does."""
    kept = [question for question in questions if len(question.prompt) + max_new_tokens <= room]
    if questions and not kept:
        shortest = min(len(question.prompt) for question in questions)
        raise DataError(
            f"evaluation.generate: no prompt leaves room for {max_new_tokens} new tokens in the model's {room}; the "
            f"shortest has {shortest} tokens: give a smaller max_new_tokens"
        )
    return kept, len(questions) - len(kept)


def answer(
    base: FrozenBase,
    decode: Callable[[Sequence[int]], str],
    questions: Sequence[Question],
    *,
    max_new_tokens: int,
    end_ids: Sequence[int],
    end_text: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Answers:
    """Answer with the model as it is now, until one of `end_ids`; text from `end_text` on is no part of an answer.

    Prompts are continued together, padded on the left, where the model's family is known to allow it; else only those
    of one length; half as many where memory runs out. `progress` is told (answers written, questions).
    Raises OutOfMemoryRunError where memory runs out with a single one.
    """
    texts, lengths = [""] * len(questions), np.zeros(len(questions), dtype=np.int64)
    is_finished = np.zeros(len(questions), dtype=np.bool_)
    done = 0
    waiting = deque(_batches([len(question.prompt) for question in questions], max_new_tokens, base.can_pad))
    while waiting:
        places = waiting.popleft()
        rows = _continued(base, [questions[place].prompt for place in places], max_new_tokens, end_ids)
        if rows is None:
            waiting.extendleft(_second_then_first_half(places, base))
            continue
        for place, row in zip(places, rows, strict=True):
            texts[place], lengths[place], is_finished[place] = cut_answer(row, decode, end_ids, end_text)
        done += len(places)
        if progress is not None:
            progress(done, len(questions))
    return Answers(tuple(texts), lengths, is_finished)


def _continued(
    base: FrozenBase, prompts: Sequence[Sequence[int]], max_new_tokens: int, end_ids: Sequence[int]
) -> Sequence[Sequence[int]] | None:
    """What follows each prompt; None where memory ran out."""
    try:
        return continue_greedily(base, prompts, max_new_tokens=max_new_tokens, end_ids=end_ids)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None


def _second_then_first_half(places: list[int], base: FrozenBase) -> tuple[list[int], list[int]]:
    """Of what did not fit. Raises OutOfMemoryRunError where that was a single prompt."""
    if len(places) == 1:
        raise OutOfMemoryRunError(
            "memory ran out in answering a single prompt; give a smaller evaluation.generate.max_new_tokens, or "
            "shorter conversations"
        )
    half = len(places) // 2
    release_memory(base.device)
    _LOG.warning("memory ran out writing %d answers at once; going on with %d", len(places), half)
    return places[half:], places[:half]


def cut_answer(
    row: Sequence[int], decode: Callable[[Sequence[int]], str], end_ids: Collection[int], end_text: str
) -> tuple[str, int, bool]:
    """What was written up to its end: as text, its tokens, and whether it has an end."""
    ends = [position for position, token in enumerate(row) if token in end_ids]
    kept = row[: ends[0]] if ends else row
    text, found, _ = decode(kept).partition(end_text) if end_text else (decode(kept), "", "")
    return text, len(kept), bool(ends or found)


def score_answers(
    answers: Answers, questions: Sequence[Question], metrics: Mapping[str, Metric]
) -> dict[str, npt.NDArray[np.float64]]:
    """By metric, a number for each question [Q]. Raises DataError where a user's metric fails."""
    pairs = list(zip(answers.texts, questions, strict=True))
    return {
        name: np.array(
            [judge(name, metric, place, text, question.reference) for place, (text, question) in enumerate(pairs)]
        )
        for name, metric in metrics.items()
    }


def answers_table(
    questions: Sequence[Question],
    base: Answers,
    adapted: Answers,
    base_scores: Mapping[str, npt.NDArray[np.float64]],
    scores: Mapping[str, npt.NDArray[np.float64]],
    decode: Callable[[Sequence[int]], str],
) -> pd.DataFrame:
    """One row per question: prompt and reference, both answers, and by metric what each is worth."""
    import pandas as pd

    columns: dict[str, Any] = {
        "document_hash": [question.document_hash for question in questions],
        "prompt": [decode(question.prompt) for question in questions],
        "reference": [question.reference for question in questions],
    }
    for prefix, answers, values in (("base_", base, base_scores), ("", adapted, scores)):
        columns |= {
            f"{prefix}answer": answers.texts,
            f"{prefix}num_tokens": answers.num_tokens,
            f"{prefix}is_finished": answers.is_finished,
            **{f"{prefix}score:{name}": numbers for name, numbers in values.items()},
        }
    return pd.DataFrame(columns)


def _prompt(prefix: Prefix, place: int, ids: Tokens) -> tuple[int, ...]:
    return (prefix_of(prefix, place), *ids.tolist())


def _batches(lengths: Sequence[int], max_new_tokens: int, can_pad: bool) -> Iterator[list[int]]:
    """Places of prompts that are continued at once, the longest first."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = lengths[batch[0]] if batch else lengths[place]
        is_full = len(batch) == ANSWER_ROWS or (len(batch) + 1) * (longest + max_new_tokens) > ANSWER_TOKENS
        if batch and (is_full or (not can_pad and lengths[place] != longest)):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
