"""Packed, masked training and scoring beside a plain loop over single conversations with TRL's semantics."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from lorabench.corpora.documents import Turn, make_conversation
from lorabench.experiment.schema import TrainingSettings
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import FrozenBase, load_base
from lorabench.scoring.documents import score_documents
from lorabench.tokens.chat import ChatTokeniser, Encoded
from lorabench.tokens.packing import ANSWER, END_OF_TURN
from lorabench.tokens.tokenizer import Tokeniser
from lorabench.training.checkpoints import Checkpoints
from lorabench.training.loop import Course, TrainingText, train
from tests.training.recording import recording_losses

pytestmark = pytest.mark.usefixtures("one_thread", "cache")
TEMPLATE = "{% for m in messages %}{{ '[' + m.role + '] ' + m.content + '\n' }}{% endfor %}"
DOCUMENTS = [
    make_conversation(
        [
            Turn("user", f"Count {number}"),
            Turn("assistant", "so " * (number % 4 + 1), learned=True),
            Turn("user", "On"),
            Turn("assistant", f"{number}!", learned=True),
        ]
    )
    for number in range(12)
]
SETTINGS = TrainingSettings(
    learning_rate=0.02, batch_size=2, context_length=128, epochs=2, precision="fp32", warmup_ratio=0.0
)


@pytest.fixture
def folder(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("smollm2"), folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
    return folder


def encode(folder: Path) -> Encoded:
    return ChatTokeniser(Tokeniser(folder), "tiny").encode(DOCUMENTS)


def single_nll(base: FrozenBase, text: Encoded, index: int) -> torch.Tensor:
    """Nats of each marked token of one conversation, by the model's own forward pass on nothing but it."""
    ids = torch.tensor([[text.prefix[index], *text.tokens[index].tolist()]])
    labels = ids.clone()
    labels[0, 1:][torch.from_numpy(text.marks[index] == 0)] = -100
    labels[0, 0] = -100
    logits = base.model(input_ids=ids).logits[0, :-1].float()
    return functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="none")


def test_scores_are_those_of_single_conversations(folder: Path) -> None:
    base, text = load_base(folder, precision="fp32", device="cpu"), encode(folder)
    scores = score_documents(base, DOCUMENTS, text.tokens, prefix=text.prefix, context_length=128, marks=text.marks)
    with torch.no_grad():
        alone = [single_nll(base, text, index).double().numpy() for index in range(len(DOCUMENTS))]
    for value, nll in ((ANSWER, scores.nll), (END_OF_TURN, scores.end_nll)):
        sums = [losses[marks == value].sum() for losses, marks in zip(alone, text.marks, strict=True)]
        assert nll == pytest.approx(sums, rel=1e-5)
    total = scores.total()
    answers = [answer for document in DOCUMENTS for answer in document.answers]
    assert total.num_bytes == sum(map(len, answers))
    assert total.bits_per_byte == pytest.approx(
        sum(losses[marks == ANSWER].sum() for losses, marks in zip(alone, text.marks, strict=True))
        / math.log(2)
        / sum(map(len, answers)),
        rel=1e-5,
    )


def test_answers_of_long_conversations_are_scored_in_windows(folder: Path) -> None:
    base, text = load_base(folder, precision="fp32", device="cpu"), encode(folder)
    scores = score_documents(base, DOCUMENTS, text.tokens, prefix=text.prefix, context_length=8, marks=text.marks)
    assert scores.num_tokens.tolist() == [int((marks == ANSWER).sum()) for marks in text.marks]


def test_training_is_that_of_a_plain_loop(folder: Path, tmp_path: Path) -> None:
    text = encode(folder)
    training = TrainingText(text.tokens, text.prefix, text.marks)
    packed = load_base(folder, precision="fp32", device="cpu")
    assert packed.execution.kind == "fast"
    seen: list[float] = []
    course = Course.of(training, SETTINGS, seed=0, micro_batch_size=1, num_evaluations=1)
    adapter = attach(packed, AdapterSettings(rank=4, alpha="2r"), seed=0)
    hooks = recording_losses(seen)
    train(packed, adapter, training, course, Checkpoints(tmp_path / "c", "k", seconds=1e9, num_recorded_steps=0), hooks)

    plain = load_base(folder, precision="fp32", device="cpu")
    other = attach(plain, AdapterSettings(rank=4, alpha="2r"), seed=0)
    parameters = [parameter for _, parameter in other.named_parameters()]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    expected: list[float] = []
    per_epoch = course.num_steps // SETTINGS.epochs
    assert per_epoch > 1, "several conversations share a row, and there are several steps"
    for step in range(course.num_steps):
        rows = training.rows(128, 0, step // per_epoch)[(step % per_epoch) * 2 :][:2]
        indices = [segment.document for row in rows for segment in row]
        losses = torch.cat([single_nll(plain, text, index) for index in indices])
        num_learned = sum(int(np.count_nonzero(text.marks[index])) for index in indices)
        loss = losses.sum() / num_learned
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, course.num_steps)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(float(loss.detach()))
    assert seen == pytest.approx(expected, abs=1e-5)
    assert abs(seen[-1] - seen[0]) > 1e-3, "something was learned"


def learning_rate(step: int, num_steps: int) -> float:
    from lorabench.training.optimization import learning_rate_at

    return learning_rate_at(step, num_steps, SETTINGS)
