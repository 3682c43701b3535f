"""What runs a form: the protocol of engines, each of which is one file in `engines/`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from lorabench.core.registry import Registry
from lorabench.core.settings import Frozen
from lorabench.scoring import documents

if TYPE_CHECKING:
    from lorabench.runs.answering import Answering
    from lorabench.scoring.answers import Answers


class Source(Frozen):
    """Where a form lies, as plain values for a process of its own."""

    form: str
    engine: str
    folder: Path
    """With the form's files."""
    base_folder: Path
    """Of the base, for a form that needs it."""
    context_length: int
    """Of the run, in tokens."""
    threads: int
    device: str = "cpu"
    """Or torch's name of a GPU."""


class Scorer(documents.Scorer, Protocol):
    """A loaded form that scores text by its logits."""

    @property
    def longest_text(self) -> int:
        """Tokens that it has positions for."""

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Of one sequence, [T, V]."""

    def answers(self, asked: Answering) -> Answers:
        """To a split's questions, greedily."""


class Runtime(Protocol):
    """A loaded form that writes, as a user would have it."""

    max_tokens: int
    """That fit into a sequence."""
    weight_bytes: int
    """Of the model's tensors as they are held."""

    @property
    def latest(self) -> list[int]:
        """The token that was chosen last in each sequence, and was not read yet."""

    def prefill(self, ids: Sequence[int], num_sequences: int) -> None:
        """Forget everything, read the prompt in each sequence, and choose each one's next token greedily."""

    def step(self) -> None:
        """One more token in each sequence."""


def write_greedily(runtime: Runtime, ids: Sequence[int], *, max_new_tokens: int, end_ids: Collection[int]) -> list[int]:
    """What follows a prompt, up to one of `end_ids` and with it."""
    runtime.prefill(ids, 1)
    written = [runtime.latest[0]]
    while len(written) < max_new_tokens and written[-1] not in end_ids:
        runtime.step()
        written.append(runtime.latest[0])
    return written


def answer_in_turn(asked: Answering, load: Callable[[int], Runtime]) -> Answers:
    """Answers to a split's questions, one after the other, by what `load` gives for as many tokens as it is told."""
    from lorabench.scoring.answers import Answers, cut_answer

    length, end_ids = asked.request.max_new_tokens, frozenset(asked.end_ids)
    runtime = load(max((len(question.prompt) for question in asked.questions), default=0) + length)
    found = []
    for question in asked.questions:
        row = write_greedily(runtime, question.prompt, max_new_tokens=length, end_ids=end_ids)
        chat = asked.work.chat.template
        found.append(cut_answer(row, asked.work.shared.tokeniser.decode, end_ids, chat.end_of_turn))
    texts, lengths, finished = zip(*found, strict=True)
    return Answers(tuple(texts), np.array(lengths, np.int64), np.array(finished, np.bool_))


def nll_of_targets(logits: npt.NDArray[np.float32], targets: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Nats of each target, [W], from logits [W, V]."""
    wide = logits.astype(np.float64)
    highest = wide.max(axis=1, keepdims=True)
    normaliser = np.log(np.exp(wide - highest).sum(axis=1)) + highest[:, 0]
    found: npt.NDArray[np.float64] = normaliser - wide[np.arange(len(wide)), targets]
    return found


class Engine(Protocol):
    """A program that runs forms."""

    def versions(self) -> dict[str, str]:
        """Of its parts, by name."""

    def require(self) -> None:
        """Raises MissingExtraError where what it needs is not installed; imports none of it."""

    def check_device(self, device: str) -> None:
        """Raises InputError where it cannot run on a device of torch's name."""

    def prepare(self) -> None:
        """Import what it needs. Raises as `require`."""

    def scorer(self, source: Source) -> Scorer:
        """Load the form for scoring."""

    def runtime(self, source: Source) -> Runtime:
        """Load the form for writing."""


ENGINES: Registry[Engine] = Registry("lorabench.deploy.engines", "ENGINE", "engine")
"""One file an engine."""
