"""How well a form scores the run's own text, by the run's own windows, and how far it lies from the adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lorabench.core.device import choose_device
from lorabench.core.errors import InputError
from lorabench.deploy.engine import Scorer
from lorabench.deploy.subject import Subject
from lorabench.experiment import identity
from lorabench.experiment.identity import BaseVariant
from lorabench.experiment.plan import make_plan
from lorabench.records.deployment import Divergence
from lorabench.runs.group import GroupWork, SharedBase, Text
from lorabench.runs.reproduction import experiment_of
from lorabench.runs.task import SharedInputs
from lorabench.scoring.documents import DocumentScores
from lorabench.tokens.packing import prefix_of
from lorabench.tokens.tokenizer import Tokeniser
from lorabench.training.loop import TrainingText

NUM_COMPARED = 1024
"""Positions at which distributions are compared."""


def group_work(subject: Subject, base_scores_dir: Path, scorer: Scorer | None = None) -> GroupWork:
    """What a run read, to be scored by `scorer`. Raises InputError where the model or corpus has changed since."""
    record = subject.record
    (group,) = make_plan(experiment_of(record), choose_device("cpu")).groups
    if group.runs[0].run_id != identity.run_id(record.spec):
        raise InputError(f"{record.run_id}: the model or corpus has changed since; lorabench reproduce says how")
    shared = SharedBase(
        BaseVariant.of(record.spec),
        subject.location,
        scorer,  # type: ignore[arg-type] # of a base no more is needed than to score
        Tokeniser(subject.location.folder),
    )
    inputs = SharedInputs.of(group, record.references.get("text_field", "text"))
    return GroupWork(shared, inputs, base_scores_dir, lambda *news: None)


def training_rows(subject: Subject, folder: Path, num_tokens: int) -> list[list[int]]:
    """The first documents that the run trained on, at most a window each, up to `num_tokens` in all.

    Raises InputError where the corpus has changed since the run. `folder` is for what is kept beside.
    """
    spec = subject.record.spec
    text, _ = group_work(subject, folder).training_text(spec)
    return _beginnings(text, spec.training.context_length, num_tokens)


def _beginnings(text: Text | TrainingText, length: int, num_tokens: int) -> list[list[int]]:
    """Of the first documents as inputs, at most `length` tokens each, `num_tokens` in all."""
    room, rows = num_tokens, []
    for place, tokens in enumerate(text.tokens):
        if room <= 0:
            break
        rows.append([prefix_of(text.prefix, place), *tokens[: min(length, room) - 1].tolist()])
        room -= len(rows[-1])
    return rows


@dataclass
class RunText:
    """What a run was scored on, tokenised as it was."""

    subject: Subject
    work: GroupWork
    scorer: Scorer

    @classmethod
    def of(cls, subject: Subject, output_dir: Path, scorer: Scorer) -> RunText:
        """To be scored by `scorer`. Raises InputError where the corpus has changed since the run."""
        return cls(subject, group_work(subject, output_dir / "base_scores", scorer), scorer)

    def score(self, split: str) -> DocumentScores:
        """By the windows of the run."""
        spec = self.subject.record.spec
        return self.work.score(spec.dataset, split, spec)

    def _compared(self) -> list[list[int]]:
        """Beginnings of validation documents as inputs: at most a window each, `NUM_COMPARED` tokens in all."""
        spec = self.subject.record.spec
        text = self.work.scored_text(spec.dataset, "validation", spec.evaluation)
        return _beginnings(text, spec.training.context_length, NUM_COMPARED)

    def log_probabilities(self) -> npt.NDArray[np.float32]:
        """Of every next token after every compared position, [N, V]."""
        return np.concatenate([_log_softmax(self.scorer.logits(ids)) for ids in self._compared()])


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normaliser = np.log(np.exp(shifted, dtype=np.float64).sum(axis=1, keepdims=True))
    found: npt.NDArray[np.float32] = (shifted - normaliser).astype(np.float32)
    return found


def divergence(ours: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> Divergence:
    """Of `ours` from `reference`, both log-probabilities [N, V]; a vocabulary that was padded is cut to the smaller."""
    width = min(ours.shape[1], reference.shape[1])
    kept, wanted = ours[:, :width], reference[:, :width]
    divergences = np.maximum((np.exp(wanted, dtype=np.float64) * (wanted - kept)).sum(axis=1), 0.0)
    return Divergence(
        num_tokens=len(kept),
        kl_mean=float(divergences.mean()),
        kl_p99=float(np.quantile(divergences, 0.99)),
        top1_agreement=float((kept.argmax(axis=1) == wanted.argmax(axis=1)).mean()),
    )
