"""Every setting and figure of a run, described once: its name, what people call it, its unit, form and where it lies.

The CSV, the tables in the terminal and in LaTeX, the page, the analysis, the plan and the trackers read it here. A new
setting or figure is one entry; it then is a column of the CSV and, a setting, an axis that reports can compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from lorabench.experiment.schema import RunSpec
from lorabench.methods.registry import method_of
from lorabench.methods.settings import AdapterSettings
from lorabench.records.column import Column, Form, Value
from lorabench.records.measured_columns import MEASURED_BESIDE
from lorabench.records.schema import RunRecord, Scores


@dataclass(frozen=True)
class Setting(Column):
    """A setting of an experiment, kept in the record's specification."""

    path: str = field(kw_only=True)
    """Where it lies in `config.RunSpec`, such as `training.learning_rate`."""
    is_axis: bool = field(kw_only=True)
    """Whether configurations differ by it; what only says how to measure is none."""
    show: Callable[[RunSpec], Value] = field(kw_only=True)
    """Its value as people read it; `read` gives what became of it where that can differ."""

    def is_in(self, section: str) -> bool:
        """Whether it lies in this section of the experiment file, such as `training`."""
        return self.path.startswith(f"{section}.")

    def as_given(self, spec: RunSpec) -> Any:
        """Its value as the experiment file gives it: alpha may be a rule such as `2r`."""
        return attrgetter(self.path)(spec)


def _setting(
    path: str,
    title: str,
    form: Form = Form.TEXT,
    short: str = "",
    unit: str = "",
    *,
    is_axis: bool = True,
    show: Callable[[RunSpec], Value] | None = None,
    read: Callable[[RunRecord], Value] | None = None,
) -> Setting:
    value = show or attrgetter(path)
    return Setting(
        path.rpartition(".")[2],
        title,
        read or (lambda record: value(record.spec)),
        form,
        short,
        unit,
        path=path,
        is_axis=is_axis,
        show=value,
    )


def _evaluation(path: str, title: str, form: Form = Form.COUNT, short: str = "", unit: str = "") -> Setting:
    return _setting(f"evaluation.{path}", title, form, short, unit, is_axis=False)


def _if_used(name: str, value: Callable[[AdapterSettings], Value]) -> Callable[[RunSpec], Value]:
    """Shows a setting where the run's method uses it."""
    return lambda spec: value(spec.adapter) if method_of(spec.adapter).uses(name) else None


SETTINGS = (
    _setting("model", "model"),
    _setting("dataset", "corpus", is_axis=False),
    _setting("adapter.method", "method"),
    _setting("adapter.rank", "rank", Form.COUNT, show=_if_used("rank", attrgetter("rank"))),
    _setting("adapter.alpha", "alpha", Form.NUMBER, show=_if_used("alpha", attrgetter("alpha_value"))),
    _setting("adapter.dropout", "dropout", Form.NUMBER),
    _setting("adapter.target_modules", "target modules", short="modules"),
    _setting("adapter.method_settings", "method settings", unit="settings that only the method has"),
    _setting("training.learning_rate", "learning rate", Form.NUMBER, "rate"),
    _setting("training.batch_size", "batch size", Form.COUNT, "batch", "rows"),
    _setting("training.micro_batch_size", "micro-batch size", Form.COUNT, "micro-batch", "rows"),
    _setting("training.context_length", "context length", Form.COUNT, "context", "tokens"),
    _setting(
        "training.train_bytes",
        "training text in bytes",
        Form.COUNT,
        "text",
        "bytes of whole documents",
        read=lambda record: record.budget.train_bytes if record.budget else None,
    ),
    _setting("training.epochs", "epochs", Form.COUNT),
    _setting("training.optimizer", "optimizer"),
    _setting("training.schedule", "schedule"),
    _setting("training.warmup_ratio", "warm-up", Form.NUMBER, unit="share of the steps"),
    _setting("training.decay_ratio", "cool-down", Form.NUMBER, unit="share of the steps, of wsd alone"),
    _setting("training.weight_decay", "weight decay", Form.NUMBER, "decay"),
    _setting("training.max_grad_norm", "gradient clipping", Form.NUMBER, "clip", "highest norm"),
    _setting("training.precision", "precision"),
    _setting("quantization", "quantisation"),
    _evaluation("validation_bytes", "validation text in bytes", short="validation text", unit="at most so many bytes"),
    _evaluation("test_bytes", "test text in bytes", short="test text", unit="at most so many bytes"),
    _evaluation("times", "validation scorings", short="scorings"),
    _evaluation("stride", "stride", unit="tokens"),
    _setting("seed", "seed", Form.COUNT, is_axis=False),
)
"""In the order in which labels and tables name them."""


def _scored(field_name: str, figure: str) -> Callable[[RunRecord], Value]:
    """Reads a figure of the record's scores; None too for one that is not finite, which no table has a number for."""

    def read(record: RunRecord) -> Value:
        scores: Scores | None = getattr(record, field_name)
        value: float | None = None if scores is None else getattr(scores, figure)
        return value if value is not None and math.isfinite(value) else None

    return read


_FIGURES = {
    "loss": ("loss", Form.BITS, "nats per token"),
    "perplexity": ("perplexity", Form.NUMBER, "per token, within one tokenizer"),
    "bits_per_byte": ("bits/byte", Form.BITS, "bits/byte"),
    "bits_per_token": ("bits/token", Form.BITS, "within one tokenizer"),
    "word_perplexity": ("word perplexity", Form.NUMBER, "per word"),
}
"""Figure of `schema.Scores` -> title, form, unit."""
_SPLITS = {
    "base_val": ("base_validation", "base validation", "base"),
    "val": ("validation", "validation", "validation"),
    "test": ("test", "test", "test"),
    "base_test": ("base_test", "base test", "base test"),
}
"""Beginning of the key -> field of the record, title, short title of the headline figure."""


def _score(split: str, figure: str) -> Column:
    field_name, where, short = _SPLITS[split]
    what, form, unit = _FIGURES[figure]
    return Column(
        f"{split}_{figure}",
        f"{where} {what}",
        _scored(field_name, figure),
        form,
        short if figure == "bits_per_byte" else "",
        unit,
        "lower",
    )


METRICS = (
    _score("base_val", "bits_per_byte"),
    _score("base_val", "perplexity"),
    _score("val", "loss"),
    _score("val", "perplexity"),
    _score("val", "bits_per_byte"),
    _score("val", "bits_per_token"),
    _score("val", "word_perplexity"),
    _score("test", "loss"),
    _score("test", "perplexity"),
    _score("test", "bits_per_byte"),
    _score("base_test", "bits_per_byte"),
    Column(
        "tokens_per_second",
        "tokens/s",
        lambda record: record.speed.tokens_per_second if record.speed else None,
        Form.COUNT,
        unit="tokens trained on per second, after warm-up",
        is_better="higher",
    ),
    Column(
        "train_seconds",
        "training s",
        lambda record: record.speed.train_seconds if record.speed else None,
        Form.NUMBER,
        unit="seconds in training steps",
        is_better="lower",
    ),
    Column(
        "peak_memory_mb",
        "peak memory MB",
        lambda record: record.speed.peak_memory_bytes / 1e6 if record.speed else None,
        Form.COUNT,
        "memory (MB)",
        "MB",
        "lower",
    ),
    Column(
        "adapter_mb",
        "adapter MB",
        lambda record: (record.adapter.adapter_bytes or 0) / 1e6 or None if record.adapter else None,
        Form.NUMBER,
        "adapter (MB)",
        "MB",
        "lower",
        decimals=1,
    ),
)
"""What came out."""


def _change(record: RunRecord) -> Value:
    adapted, base = COLUMNS["val_bits_per_byte"].read(record), COLUMNS["base_val_bits_per_byte"].read(record)
    return adapted / base - 1.0 if isinstance(adapted, float) and isinstance(base, float) and base else None


CHANGE = Column(
    "gain",
    "against base",
    _change,
    Form.PERCENT,
    "vs base",
    "change of validation bits/byte against the base",
    "lower",
)
"""Follows from two columns of the CSV, which does not repeat it."""

EVIDENCE = tuple(
    Column(
        f"{split}_effective_documents",
        f"effective documents of {where}",
        _scored(where, "effective_documents"),
        Form.NUMBER,
        f"documents, {where}",
        "documents of one length that weigh as much",
        "higher",
    )
    for split, where in (("val", "validation"), ("test", "test"))
)
"""How much text the figures rest on."""

FACTS = (
    Column("run_id", "run", lambda record: record.run_id),
    Column("status", "status", lambda record: record.status.value),
    Column("status_reason", "reason", lambda record: record.status_reason),
    Column("experiment", "experiment", lambda record: record.experiment),
    Column(
        "model_revision",
        "model revision",
        lambda record: record.model.revision if record.model else record.spec.model_revision,
    ),
    Column(
        "model_parameters",
        "model parameters",
        lambda record: record.model.num_parameters if record.model else None,
        Form.COUNT,
    ),
    Column(
        "dataset_revision",
        "corpus revision",
        lambda record: record.dataset.revision if record.dataset else record.spec.dataset_revision,
    ),
    Column(
        "trainable_parameters",
        "trained parameters",
        lambda record: record.adapter.trainable_parameters if record.adapter else None,
        Form.COUNT,
        "trainable",
    ),
    Column(
        "train_tokens",
        "text tokens",
        lambda record: record.budget.train_tokens if record.budget else None,
        Form.COUNT,
        "tokens",
    ),
    Column("steps", "steps", lambda record: record.budget.steps if record.budget else None, Form.COUNT),
    Column("device", "kind of device", lambda record: record.environment.device),
    Column("num_devices", "devices", lambda record: record.environment.num_devices, Form.COUNT),
    Column("device_name", "device", lambda record: record.environment.device_name),
    Column("execution_path", "path", lambda record: record.adapter.execution_path if record.adapter else None),
    Column("lorabench_version", "lorabench", lambda record: record.environment.lorabench_version),
    Column("git_commit", "commit", lambda record: record.environment.git_commit),
    Column("started_at", "started", lambda record: record.started_at),
    Column("finished_at", "finished", lambda record: record.finished_at),
    Column("num_test_scorings", "test scorings", lambda record: record.num_test_scorings, Form.COUNT),
    Column("attempt", "attempt", lambda record: record.attempt, Form.COUNT),
    Column("num_resumed", "resumed", lambda record: record.num_resumed, Form.COUNT),
    Column("num_skipped_steps", "skipped steps", lambda record: record.num_skipped_steps, Form.COUNT),
    Column("notes", "notes", lambda record: "; ".join(record.notes) or None),
    Column(
        "base_mb",
        "base's weights MB",
        lambda record: record.speed.base_bytes / 1e6 if record.speed and record.speed.base_bytes else None,
        Form.COUNT,
    ),
)
"""What a run was and where it ran."""

COLUMNS = {column.key: column for column in (*SETTINGS, *METRICS, *MEASURED_BESIDE, *FACTS, *EVIDENCE)}
"""All of them by key."""

AXES = {setting.key: setting for setting in SETTINGS if setting.is_axis}
"""The settings by which configurations differ."""


def axis_values(spec: RunSpec) -> dict[str, Value]:
    """Every axis as the experiment file gives it; None for what means nothing to the method."""
    values = {key: setting.as_given(spec) for key, setting in AXES.items()}
    return values | dict.fromkeys(method_of(spec.adapter).unused_settings)


@dataclass(frozen=True)
class StepFigure:
    """What is logged after every optimizer step."""

    key: str
    title: str
    unit: str = ""

    @property
    def heading(self) -> str:
        """Title and unit above a curve."""
        return self.title + (f", {self.unit}" if self.unit else "")


STEP_FIGURES = {
    figure.key: figure
    for figure in (
        StepFigure("step", "Step"),
        StepFigure("loss", "Training loss", "nats per token"),
        StepFigure("smoothed_loss", "Training loss (smoothed)", "nats per token"),
        StepFigure("learning_rate", "Learning rate"),
        StepFigure("gradient_norm", "Gradient norm before clipping"),
        StepFigure("tokens_per_second", "Tokens per second"),
        StepFigure("train_tokens", "Tokens trained on"),
        StepFigure("seconds", "Time of the step", "seconds"),
        StepFigure("loss_scale", "Scale of the loss, in fp16"),
    )
}
"""In the order of metrics.jsonl."""
