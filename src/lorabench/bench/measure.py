"""Measures one setting: the training loop itself on real sizes, evaluation, memory, and the limit beside them."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lorabench.bench.limit import Products, measure_products
from lorabench.bench.request import Point
from lorabench.bench.subject import Subject
from lorabench.core.device import EVALUATION_TOKENS, peak_memory, reset_peak_memory
from lorabench.experiment.estimates import remember_speed
from lorabench.experiment.schema import TrainingSettings
from lorabench.experiment.workload import Workload
from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import DTYPES
from lorabench.tokens.packing import document_segments, make_batch
from lorabench.training.checkpoints import Checkpoints
from lorabench.training.loop import NUM_WARMUP_STEPS, Course, Hooks, train

NUM_EVALUATIONS = 5
EVALUATION_SECONDS = 10.0
"""About the longest that one of them may take: scoring is some three times as fast as training."""
NEVER_SECONDS = 1e9


@dataclass(frozen=True)
class Rate:
    """Tokens per second: median and quartiles over steps."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, tokens: Sequence[int], seconds: Sequence[float]) -> Rate:
        """From each step's scored tokens and seconds."""
        rates = [count / took for count, took in zip(tokens, seconds, strict=True)]
        low, _, high = statistics.quantiles(rates, n=4, method="inclusive") if len(rates) > 1 else rates * 3
        return cls(statistics.median(rates), low, high)


@dataclass(frozen=True)
class Result:
    """What was measured at one point."""

    model: str
    weights: str
    device: str
    precision: str
    point: Point
    micro_batch_size: int
    num_parameters: int
    trainable_parameters: int
    training: Rate
    evaluation: Rate
    limit: Products
    peak_memory_bytes: int
    load_seconds: float
    compile_seconds: float
    first_step_seconds: float
    execution_path: str
    execution_reason: str
    losses: list[float] = field(default_factory=list)

    @property
    def share_of_limit(self) -> float:
        """Training speed ÷ what the matrix products alone would allow."""
        return self.training.median / self.limit.training_tokens_per_second

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        values = {key: value for key, value in asdict(self).items() if key not in ("training", "evaluation", "limit")}
        values.update(values.pop("point"))
        return values | {
            "tokens_per_second": self.training.median,
            "tokens_per_second_quartiles": [self.training.low, self.training.high],
            "evaluation_tokens_per_second": self.evaluation.median,
            "evaluation_tokens_per_second_quartiles": [self.evaluation.low, self.evaluation.high],
            "limit_tokens_per_second": self.limit.training_tokens_per_second,
            "share_of_limit": self.share_of_limit,
            "evaluation_share_of_limit": self.evaluation.median / self.limit.evaluation_tokens_per_second,
            "product_seconds": {
                "linear": self.limit.linear,
                "head": self.limit.head,
                "adapters": self.limit.adapters,
                "attention": self.limit.attention,
            },
        }


def bench(subject: Subject, point: Point) -> Result:
    """Train, evaluate and time the products at one point. Nothing of the base is changed."""
    base, device = subject.base, subject.base.device
    settings = AdapterSettings(rank=point.rank)
    micro_batch_size = subject.device.micro_batch(point.batch_size, point.context_length)
    adapter = attach(base, settings, seed=0)
    try:
        reset_peak_memory(device)
        steps = _train(subject, adapter, point, micro_batch_size)
        memory = peak_memory(device)
        timed = steps[NUM_WARMUP_STEPS:]
        training = Rate.of([step["tokens"] for step in timed], [step["seconds"] for step in timed])
        evaluation = _evaluate(subject, point, training)
        execution, trainable = base.execution, adapter.num_trainable
    finally:
        adapter.detach()
    base.release_memory()  # so that the products below do not add to the process's peak
    limit = _limit(subject, point, micro_batch_size)
    result = Result(
        model=subject.name,
        weights=subject.weights,
        device=subject.device.name,
        precision=base.precision,
        point=point,
        micro_batch_size=micro_batch_size,
        num_parameters=base.num_parameters,
        trainable_parameters=trainable,
        training=training,
        evaluation=evaluation,
        limit=limit,
        peak_memory_bytes=memory,
        load_seconds=subject.load_seconds,
        compile_seconds=base.compile_seconds,
        first_step_seconds=steps[0]["seconds"],
        execution_path=execution.kind,
        execution_reason=execution.reason,
        losses=[step["loss"] for step in steps],
    )
    _remember(subject, settings, point, micro_batch_size, result)
    return result


def _train(subject: Subject, adapter: Adapter, point: Point, micro_batch_size: int) -> list[dict[str, Any]]:
    """Run the training loop itself for the warm-up and the timed steps; tokens, seconds and loss of each."""
    num_steps = point.num_steps + NUM_WARMUP_STEPS
    steps: list[dict[str, Any]] = []
    seen = 0

    def on_step(values: dict[str, Any]) -> None:
        nonlocal seen
        steps.append({"tokens": values["train_tokens"] - seen, "seconds": values["seconds"], "loss": values["loss"]})
        seen = values["train_tokens"]

    text = subject.training_text(num_steps * point.batch_size, point.context_length)
    settings = TrainingSettings(batch_size=point.batch_size, context_length=point.context_length)
    with tempfile.TemporaryDirectory() as folder:
        train(
            subject.base,
            adapter,
            text,
            Course.of(text, settings, seed=0, micro_batch_size=micro_batch_size, num_evaluations=1),
            Checkpoints(Path(folder), "bench", seconds=NEVER_SECONDS, num_recorded_steps=0),
            Hooks(
                on_step=on_step,
                evaluate=lambda: ({}, 0),
                on_evaluation=lambda values: None,
                on_start=lambda position, problems: None,
                on_checkpoint=lambda: None,
                should_stop=lambda: False,
            ),
        )
    return steps


def _evaluate(subject: Subject, point: Point, training: Rate) -> Rate:
    """Score full windows, as many at once as scoring a corpus takes, or fewer where that would take too long."""
    base, length = subject.base, point.context_length
    affordable = EVALUATION_SECONDS * 3 * training.median
    num_rows = max(1, int(min(EVALUATION_TOKENS[base.device.type], affordable)) // length)
    text = subject.training_text(num_rows, length)
    rows = [
        [segment]
        for index, ids in enumerate(text.tokens)
        for segment in document_segments(index, ids, prefix=text.prefix, context_length=length)
    ]
    batch = make_batch(rows)
    seconds = []
    for _ in range(NUM_EVALUATIONS + 1):
        started = time.perf_counter()
        base.token_nll(batch)
        base.synchronize()
        seconds.append(time.perf_counter() - started)
    return Rate.of([batch.num_scored] * NUM_EVALUATIONS, seconds[1:])


def _limit(subject: Subject, point: Point, num_rows: int) -> Products:
    shape = subject.shape
    config = subject.base.model.config
    queries = int(config.num_attention_heads)
    return measure_products(
        shape,
        shape.linears,
        num_query_heads=queries,
        num_key_heads=int(getattr(config, "num_key_value_heads", None) or queries),
        head_width=int(getattr(config, "head_dim", None) or shape.hidden_size // queries),
        rank=point.rank,
        context_length=point.context_length,
        num_rows=num_rows,
        dtype=DTYPES[subject.base.precision],
        device=subject.base.device,
    )


def _remember(subject: Subject, settings: AdapterSettings, point: Point, rows_at_once: int, result: Result) -> None:
    """What was seen here makes later plans on this machine better."""
    workload = Workload(
        adapter=settings,
        target_modules=tuple(subject.shape.linears),
        context_length=point.context_length,
        rows_at_once=rows_at_once,
        precision=result.precision,
        evaluation_tokens=0,
    )
    remember_speed(subject.shape, workload, result.training.median, result.evaluation.median, subject.device)
