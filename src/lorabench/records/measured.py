"""Parts of the record that tell how a finished adapter was measured, and what it answered."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from lorabench.core.settings import Frozen


class Facts(Frozen):
    """A part of a record: its figures are finite, since JSON has no others."""

    model_config = ConfigDict(allow_inf_nan=False)


class Measurement(Facts):
    """With what settings, when and by what a finished adapter was measured: it may be long after its run."""

    validation_bytes: int
    """At most so many bytes of the corpus' validation text."""
    context_length: int
    stride: int | None
    precision: str
    quantization: str = "none"
    device: str
    device_name: str
    lorabench_version: str
    code_sha256: str
    measured_at: str
    """ISO 8601, UTC."""


class AnswerFigure(Facts):
    """The mean of a metric over all answers, of the base and of the adapter; higher is better."""

    base: float
    adapted: float


class Answers(Facts):
    """What base and adapter answered of one split (`evaluation.generate`)."""

    split: str
    revision: str
    """Of what was asked for: metrics, pattern, most tokens, most examples."""
    metrics: dict[str, AnswerFigure]
    pattern: str | None = None
    """Of the metric `regex`."""
    max_new_tokens: int
    num_examples: int = Field(ge=1)
    num_left_out: int = 0
    """Documents whose prompt leaves no room for an answer in the model's context."""
    num_cut: int = 0
    """Answers of the adapter that were cut at `max_new_tokens`."""
    base_num_cut: int = 0
    num_times: int = 1
    """How often the split was answered: more than once where something else was asked for later."""
    documents: str
    """The file of both models' answers, within the run's folder; its hash is in the record's `files`."""
    measurement: Measurement
