"""Lets base and adapter answer, and keeps what they answered: the base's once per corpus, both beside the record."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lorabench.core.canonical import fingerprint
from lorabench.core.errors import DataError
from lorabench.core.storage import read_regular, set_aside, sha256_file, write_atomically
from lorabench.experiment.generate import AnswersRequest, no_questions
from lorabench.experiment.schema import RunSpec
from lorabench.records.measured import AnswerFigure, Measurement
from lorabench.records.measured import Answers as AnswersOfRecord
from lorabench.records.provenance import running_code_sha256
from lorabench.records.schema import RunRecord
from lorabench.scoring.answers import (
    Answers,
    Question,
    answer,
    answers_table,
    questions_of,
    score_answers,
    split_by_room,
)
from lorabench.scoring.metrics import load_metrics

if TYPE_CHECKING:
    from lorabench.runs.group import GroupWork

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answering:
    """The questions of one split of a run's corpus, and how they are answered."""

    work: GroupWork
    spec: RunSpec
    request: AnswersRequest
    split: str
    questions: Sequence[Question]
    num_left_out: int
    """Documents whose prompt leaves no room for an answer."""

    @classmethod
    def of(cls, work: GroupWork, spec: RunSpec, request: AnswersRequest, split: str) -> Answering:
        """Raises DataError where the corpus asks nothing, or no prompt leaves room for an answer."""
        corpus = work.corpus(spec.dataset)
        if corpus.info.format == "text":
            raise DataError(no_questions(spec.dataset))
        load_metrics(request)  # one that does not run costs no answers
        documents = corpus.splits[split][: request.num_examples]
        asked = questions_of(documents, work.chat.encode(documents))
        questions, num_left_out = split_by_room(asked, work.shared.base.longest_text, request.max_new_tokens)
        return cls(work, spec, request, split, questions, num_left_out)

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end an answer."""
        tokeniser, template = self.work.shared.tokeniser, self.work.chat.template
        ends = (tokeniser.end_token_id, tokeniser.token_id(template.end_of_turn))
        return sorted({token for token in ends if token is not None})

    def answers(self, phase: str) -> Answers:
        """Of the model as it is now."""
        tokeniser, template = self.work.shared.tokeniser, self.work.chat.template
        return answer(
            self.work.shared.base,
            tokeniser.decode,
            self.questions,
            max_new_tokens=self.request.max_new_tokens,
            end_ids=self.end_ids,
            end_text=template.end_of_turn,
            progress=lambda done, total: self.work.progress(phase, done, total),
        )

    def judged(self, answers: Answers) -> dict[str, npt.NDArray[np.float64]]:
        """By metric, what answers are worth [Q]. Raises DataError where a metric fails."""
        return score_answers(answers, self.questions, load_metrics(self.request))

    def base_answers(self) -> Answers:
        """The base's own, written once and kept on disk; judged once, so that a metric that fails is known early.

        Call only while no adapter is attached, or after the first call.
        """
        shared = self.work.shared
        key = fingerprint(
            {
                "model": [shared.variant.model, shared.variant.revision, shared.tokeniser.sha256],
                "template": self.work.chat.template.sha256,
                "questions": [question.document_hash for question in self.questions],
                "max_new_tokens": self.request.max_new_tokens,
                "precision": shared.variant.loading,
                "device": shared.base.device.type,
                "code": running_code_sha256(),
            }
        )
        kept = self.work.base_answers
        if key not in kept:
            with self.work.made_once(f"answers-{key}", f"answers {self.spec.dataset} with the base"):
                found = _read(self.work.base_scores_dir, key, len(self.questions))
                if found is None:
                    found = self.answers(f"the base answers {self.spec.dataset} ({self.split})")
                    _write(self.work.base_scores_dir, key, found)
            kept[key] = found
            self.judged(found)
        return kept[key]


def with_answers(
    record: RunRecord, asked: Answering, base: Answers, folder: Path, measurement: Measurement
) -> RunRecord:
    """The record with what the model, as it is now, answers to a split, in place of earlier answers to it.

    The file's name changes with what was asked for, so that an earlier record stays whole until there is a new one.
    """
    adapted = asked.answers(f"answering {asked.split}")
    base_scores, scores = asked.judged(base), asked.judged(adapted)
    table = answers_table(asked.questions, base, adapted, base_scores, scores, asked.work.shared.tokeniser.decode)
    file = f"documents/answers-{asked.split}@{asked.request.revision[:8]}.parquet"
    write_atomically(folder / file, table.to_parquet(index=False, compression="zstd"))
    before = record.answers_of(asked.split)
    answers = AnswersOfRecord(
        split=asked.split,
        revision=asked.request.revision,
        metrics={
            name: AnswerFigure(base=float(base_scores[name].mean()), adapted=float(values.mean()))
            for name, values in scores.items()
        },
        pattern=asked.request.pattern,
        max_new_tokens=asked.request.max_new_tokens,
        num_examples=len(asked.questions),
        num_left_out=asked.num_left_out,
        num_cut=adapted.num_cut,
        base_num_cut=base.num_cut,
        num_times=1 if before is None else before.num_times + 1,
        documents=file,
        measurement=measurement,
    )
    every = {found.split: found for found in (*record.answers, answers)}
    files = {name: digest for name, digest in record.files.items() if before is None or name != before.documents}
    update = {
        "answers": tuple(every[split] for split in ("validation", "test") if split in every),
        "files": {**files, file: sha256_file(folder / file)},
    }
    return record.model_copy(update=update)


def _write(folder: Path, key: str, answers: Answers) -> None:
    """Keep answers in a file whose name is the key and a hash of both key and content."""
    import pandas as pd

    table = pd.DataFrame(
        {"answer": answers.texts, "num_tokens": answers.num_tokens, "is_finished": answers.is_finished}
    )
    content = table.to_parquet(index=False, compression="zstd")
    write_atomically(folder / f"answers-{key}-{_keyed_hash(key, content)}.parquet", content)


def _keyed_hash(key: str, content: bytes) -> str:
    return hashlib.sha256(key.encode() + content).hexdigest()


def _read(folder: Path, key: str, num_answers: int) -> Answers | None:
    """Kept answers, if they are whole; damaged ones are named and set aside."""
    import pandas as pd

    for path in sorted(folder.glob(f"answers-{key}-*.parquet")):
        try:
            content = read_regular(path)
            if _keyed_hash(key, content) != path.stem.rpartition("-")[2]:
                raise ValueError("it does not match its hash")
            table = pd.read_parquet(io.BytesIO(content), use_threads=False)
            if len(table) != num_answers:
                raise ValueError("it holds other answers")
            return Answers(
                tuple(table["answer"]),
                table["num_tokens"].to_numpy(dtype=np.int64),
                table["is_finished"].to_numpy(dtype=np.bool_),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.warning("%s is damaged (%s): set aside as %s and made again", path, error, set_aside(path).name)
    return None
