"""Estimates time and memory of a run from shapes and from how fast this machine is. Imports no torch.

Work is counted in multiply-adds of the matrix products. Their speed is what runs of the same model and precision were
seen to reach on this machine. Before there was one it is, on a processor, a share of what a short probe with numpy
reaches and a fixed time per layer for what is not a product; on a GPU the products, bytes and launches per second that
were measured when something first ran on it, and before that what the card's maker publishes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lorabench.core.cards import Card, find_card
from lorabench.core.device import Device
from lorabench.core.device_rates import DeviceRates
from lorabench.core.machine import num_whole_cores
from lorabench.core.probe import multiply_adds_per_core
from lorabench.experiment.calibration import keep, measured_rates, read_calibration
from lorabench.experiment.identity import loading_name
from lorabench.fast.declarations import FAST_TYPES, MAX_LOGITS
from lorabench.methods.registry import method_of
from lorabench.methods.settings import AdapterSettings
from lorabench.models.linears import HasLinears

START_SECONDS = 5.0
"""Per experiment: Python's own start, importing the libraries."""
ASSUMED_START_SECONDS = {"loading": 5.0, "report": 3.0}
"""Per experiment, until this machine was seen to do it: loading the first base, building the report."""
FIXED_SECONDS = 0.6
"""Per run: attaching, saving, writing the record."""
SAMPLE_SECONDS_PER_LAYER = 0.03
"""Writing the sample continuations with the base and with the adapter, on a processor."""
ANSWER_ROWS = 32
"""Answers written at once."""
ANSWER_TOKENS = 8192
"""Of prompts and answers whose keys and values are held at once."""
ANSWER_SECONDS_PER_LAYER = 0.0008
"""Of a step that writes one token of every answer: calls whose time does not depend on the width, on a processor."""
PROMPT_TOKENS = 100
"""Of a question, about."""
SHARE_OF_PROBE = {"training": 0.75, "evaluation": 0.85}
"""What runs were seen to reach of the probe's speed, where products are large."""
LAYER_SECONDS = {"training": 0.0025, "evaluation": 0.0008}
"""Per layer and micro-batch on a processor: passes and calls whose time does not depend on the width."""
ASSUMED_GPU_RATE = 25e12
"""Multiply-adds per second of a GPU where nothing was measured yet: a third of an A100's peak."""
FULL_SPEED_GPU_WIDTH = 2048
"""Narrower models reach less of a GPU's rate: with the square root of their width."""
CARD_SHARES = {"products": 0.8, "memory": 0.9}
"""Of a known card's published rates: what products reach of the one, everything else of the other."""
CARD_BYTES = {"training": 330, "evaluation": 110}
"""Per token, layer and unit of width: what everything but products moves once passes are compiled."""
LAYER_LAUNCHES = {"training": 64, "evaluation": 20}
"""Per layer and micro-batch, as they are counted on meta tensors: pieces of work that the processor hands to a GPU."""
ASSUMED_BF16_GAIN = {"cpu": 3.0, "gpu": 2.0}
REFERENCE_SLOWDOWN = {"bf16": 2.5, "fp16": 2.5, "fp32": 1.6}
"""PEFT's and Transformers' own computation, next to the fast path. In fp16: as in bf16, which was measured."""
PROBE_LIFE_SECONDS = 3600.0
"""Then the processor is probed again: its clock may have changed."""
PROCESS_BYTES = 620_000_000
"""Python and the libraries themselves."""
REFERENCE_BYTES = {"known": 8, "unknown": 12}
"""Per output of a linear layer that PEFT and Transformers keep for the backward pass, and what that needs itself, in
either precision: adapters and norms are float32. Attention of families without a fast path may keep its weights."""
FAST_QUANTIZATIONS = ("none", "nf4", "nf4-double", "fp8")
"""Ways to hold a base that the fast path covers."""
QUANTIZED_BYTES = {"nf4": 0.5 + 4 / 64, "nf4-double": 0.5 + 1 / 64 + 4 / 16_384, "int8": 1.0, "fp8": 1.0}
"""Of a weight in a quantised linear layer: its code, and its share of a block's scale."""
STREAM_BYTES = 8
"""Per layer, token and unit of width on the fast path: the residual stream twice, in place of what is added to it."""
GRADIENTS_ON_THEIR_WAY = 1.2
"""Of the fast path's memory for the backward pass, next to what is kept for it."""
CHECKPOINTED_LAYERS = {"fast": 2, "reference": 4}
"""Whose activations are there at once: of the one that is computed once more, and gradients on their way through it."""
LOGIT_BYTES = {"kept": 4, "passing": 8}
"""Per logit where a model makes them itself: those of a micro-batch, and on top those of one pass."""
EVALUATION_TOKENS = 2048
"""Scored at once."""
REFERENCE_LOGIT_BYTES = 12
"""Per logit beside itself, where torch computes its cross-entropy: in float32, as a logarithm and as a gradient."""
LOGIT_TOKENS = 256
"""Whose logits are held at once, where the model's family is known."""


class PlannedShape(HasLinears, Protocol):
    """What is known of a model before it is loaded."""

    @property
    def vocabulary_size(self) -> int: ...
    @property
    def family(self) -> str: ...


@dataclass(frozen=True)
class Workload:
    """What a run would compute. Tokens are counted over all epochs and all evaluations."""

    context_length: int
    precision: str
    evaluation_tokens: int
    train_tokens: int = 0
    adapter: AdapterSettings | None = None
    target_modules: Sequence[str] = ()
    rows_at_once: int = 1
    checkpointing: bool = False
    """Whether layers are computed once more in the backward pass."""
    writes_samples: bool = False
    answers: tuple[int, int] = (0, 0)
    """Completions written greedily, and the most tokens of each."""
    quantization: str = "none"
    sharing: int = 1
    """GPUs that share the rows of a step; processes on one processor are no faster than one."""

    def is_fast(self, shape: PlannedShape) -> bool:
        """Whether the fast path covers it."""
        return (
            shape.family in FAST_TYPES
            and self.quantization in FAST_QUANTIZATIONS
            and (self.adapter is None or method_of(self.adapter).is_fast_with(self.adapter))
        )

    def slowdown(self, shape: PlannedShape) -> float:
        """Next to the fast path."""
        return 1.0 if self.is_fast(shape) else REFERENCE_SLOWDOWN[self.precision]

    @classmethod
    def evaluation_only(
        cls,
        *,
        num_tokens: int,
        context_length: int,
        precision: str,
        quantization: str = "none",
        answers: tuple[int, int] = (0, 0),
    ) -> Workload:
        """Scoring the base, and its answers."""
        return cls(context_length, precision, num_tokens, answers=answers, quantization=quantization)


@dataclass(frozen=True)
class Estimate:
    """Wall-clock seconds and peak bytes."""

    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Rates:
    """Multiply-adds per second, and what comes on top of them."""

    training: float
    evaluation: float
    training_layer_seconds: float = 0.0
    evaluation_layer_seconds: float = 0.0


def forward_multiply_adds(shape: PlannedShape, window: int) -> float:
    """Per token: linear layers, output head, attention over half the window on average."""
    linear = sum(inputs * outputs for inputs, outputs in shape.linears.values())
    head = shape.hidden_size * shape.vocabulary_size
    attention = shape.num_layers * shape.hidden_size * window
    return float(linear + head + attention)


def training_multiply_adds(shape: PlannedShape, workload: Workload) -> float:
    """Per token, forward and backward. Raises ValueError for a workload that trains nothing."""
    if workload.adapter is None:
        raise ValueError("nothing is trained")
    forward = forward_multiply_adds(shape, workload.context_length)
    work = method_of(workload.adapter).training_work(shape, workload.adapter, workload.target_modules, forward)
    return work + forward if workload.checkpointing else work


def estimate_run(shape: PlannedShape, workload: Workload, device: Device) -> Estimate:
    """Seconds and peak bytes of a run on `device`, or of scoring the base when nothing is trained."""
    seconds = _seconds(shape, workload, _rates(shape, workload, device))
    return Estimate(seconds, estimate_memory(shape, workload))


def start_seconds(device: Device) -> float:
    """Of a command, before its first run and after its last one: as this machine did it last."""
    seen: dict[str, float] = read_calibration(device).get("start", {})
    return START_SECONDS + sum((ASSUMED_START_SECONDS | seen).values())


def remember_start(device: Device, part: str, seconds: float) -> None:
    """Keep how long a part of `ASSUMED_START_SECONDS` took."""
    keep(device, "start", {**read_calibration(device).get("start", {}), part: seconds})


def estimate_gpu_seconds(shape: PlannedShape, workload: Workload, device: Device) -> float:
    """Seconds that the work would take on one GPU: `device` if it is one, or else one like an A100, in bfloat16."""
    alone = replace(workload, sharing=1)
    if device.is_gpu:
        return estimate_run(shape, alone, device).seconds
    return _seconds(shape, alone, _gpu_rates(shape, replace(alone, precision="bf16")))


def _seconds(shape: PlannedShape, workload: Workload, rates: Rates) -> float:
    per_token = forward_multiply_adds(shape, workload.context_length) / rates.evaluation
    per_token += rates.evaluation_layer_seconds * shape.num_layers / EVALUATION_TOKENS
    seconds = workload.evaluation_tokens * per_token
    seconds += SAMPLE_SECONDS_PER_LAYER * shape.num_layers if workload.writes_samples else 0.0
    seconds += _answer_seconds(shape, workload, rates)
    if workload.train_tokens:
        seconds += FIXED_SECONDS
        per_token = training_multiply_adds(shape, workload) / rates.training
        per_token += rates.training_layer_seconds * shape.num_layers / (workload.rows_at_once * workload.context_length)
        seconds += workload.train_tokens * per_token / workload.sharing
    return seconds


def _answer_seconds(shape: PlannedShape, workload: Workload, rates: Rates) -> float:
    """Of prompts, and of a step for each token of the answers that are written at once; at most, as many end early."""
    num_answers, length = workload.answers
    steps, tokens = -(-num_answers // ANSWER_ROWS) * length, num_answers * (PROMPT_TOKENS + length)
    work = tokens * forward_multiply_adds(shape, workload.context_length) * workload.slowdown(shape) / rates.evaluation
    return work + steps * shape.num_layers * ANSWER_SECONDS_PER_LAYER


def _answer_bytes(shape: PlannedShape, workload: Workload, width: int) -> int:
    """Keys and values of the answers that are written at once, where every head has its own."""
    num_answers, length = workload.answers
    tokens = min(ANSWER_TOKENS, min(num_answers, ANSWER_ROWS) * (PROMPT_TOKENS + length))
    return 2 * shape.num_layers * shape.hidden_size * width * tokens


def estimate_memory(shape: PlannedShape, workload: Workload) -> int:
    """Peak bytes of a run, or of scoring the base when nothing is trained."""
    width = 4 if workload.precision == "fp32" else 2
    base = PROCESS_BYTES + _base_bytes(shape, workload.quantization, width)
    answers = _answer_bytes(shape, workload, width)
    if workload.adapter is None:
        return base + answers
    tokens = workload.rows_at_once * workload.context_length
    method = method_of(workload.adapter)
    trained = method.training_bytes(shape, workload.adapter, workload.target_modules, width)
    training = _logit_bytes(shape, tokens, width if workload.is_fast(shape) else width + REFERENCE_LOGIT_BYTES)
    if workload.is_fast(shape):
        streams = shape.num_layers * shape.hidden_size * (STREAM_BYTES - 2 * width)
        kept = tokens * (_num_outputs(shape) * width * (1 + method.fast_outputs) + streams)
        kept = round(GRADIENTS_ON_THEIR_WAY * kept)
    else:
        each = REFERENCE_BYTES["known" if shape.family in FAST_TYPES else "unknown"] + method.reference_bytes
        kept = tokens * _num_outputs(shape) * each
    if workload.checkpointing:
        inputs = tokens * shape.num_layers * shape.hidden_size * (4 + width)
        num_layers = CHECKPOINTED_LAYERS["fast" if workload.is_fast(shape) else "reference"]
        kept = min(kept, inputs + num_layers * kept // shape.num_layers)
    training += kept
    return base + trained + max(training, answers)


def _base_bytes(shape: PlannedShape, quantization: str, width: int) -> int:
    """Of the frozen base's weights; quantised, its linear layers take what their codes and scales take."""
    if quantization == "none":
        return shape.num_parameters * width
    quantised = sum(inputs * outputs for inputs, outputs in shape.linears.values())
    return round((shape.num_parameters - quantised) * width + quantised * QUANTIZED_BYTES[quantization])


def _num_outputs(shape: PlannedShape) -> int:
    """Numbers that a token's pass makes: outputs of linear layers, and one norm a layer."""
    return sum(outputs for _, outputs in shape.linears.values()) + shape.num_layers * shape.hidden_size


def _logit_bytes(shape: PlannedShape, tokens: int, width: int) -> int:
    if shape.family in FAST_TYPES:
        return min(tokens, LOGIT_TOKENS) * shape.vocabulary_size * width
    logits = tokens * shape.vocabulary_size
    return LOGIT_BYTES["kept"] * logits + LOGIT_BYTES["passing"] * min(logits, MAX_LOGITS)


def _rates(shape: PlannedShape, workload: Workload, device: Device) -> Rates:
    measured = read_calibration(device).get(_key(shape, workload))
    if measured is not None:
        return Rates(float(measured["training"]), float(measured["evaluation"]))
    if device.is_gpu:
        rates = measured_rates(device)
        if rates is None and (card := find_card(device.name)) is not None:
            rates = published_rates(card)
        return _gpu_rates(shape, workload) if rates is None else _device_rates(shape, workload, rates)
    rate = _probed_rate(device) / workload.slowdown(shape)
    if workload.precision == "bf16" and device.supports_bf16:
        rate *= ASSUMED_BF16_GAIN["cpu"]
    return Rates(
        rate * SHARE_OF_PROBE["training"],
        rate * SHARE_OF_PROBE["evaluation"],
        LAYER_SECONDS["training"] * workload.slowdown(shape),
        LAYER_SECONDS["evaluation"] * workload.slowdown(shape),
    )


def _gpu_rates(shape: PlannedShape, workload: Workload) -> Rates:
    rate = ASSUMED_GPU_RATE * (1.0 if workload.precision == "fp32" else ASSUMED_BF16_GAIN["gpu"])
    rate *= min(1.0, (shape.hidden_size / FULL_SPEED_GPU_WIDTH) ** 0.5) / workload.slowdown(shape)
    return Rates(rate, rate)


def published_rates(card: Card) -> DeviceRates:
    """What is expected of a card that was never measured."""
    products, memory = CARD_SHARES["products"] / 2, CARD_SHARES["memory"]
    return DeviceRates(
        bf16=products * card.bf16_rate,
        fp16=products * card.fp16_rate,
        fp32=products * card.fp32_rate,
        bytes_per_second=memory * card.bytes_per_second,
    )


def _device_rates(shape: PlannedShape, workload: Workload, rates: DeviceRates) -> Rates:
    """Products and what lies between them, one after the other; that takes at least as long as to ask for it."""
    slowdown = workload.slowdown(shape)
    products = rates.products(workload.precision) / slowdown
    width = (2 if workload.precision == "fp32" else 1) * shape.hidden_size
    tokens = {"training": workload.rows_at_once * workload.context_length, "evaluation": EVALUATION_TOKENS}
    seconds = {
        what: slowdown
        * max(
            CARD_BYTES[what] * width * num_tokens / rates.bytes_per_second, LAYER_LAUNCHES[what] * rates.launch_seconds
        )
        for what, num_tokens in tokens.items()
    }
    return Rates(products, products, seconds["training"], seconds["evaluation"])


def _probed_rate(device: Device) -> float:
    """Multiply-adds per second of float32 products on all cores: measured on one of them and kept for an hour."""
    kept = read_calibration(device).get("probe")
    if isinstance(kept, dict) and 0 <= time.time() - kept["at"] < PROBE_LIFE_SECONDS:
        return float(kept["rate"])
    rate = num_whole_cores() * multiply_adds_per_core()
    keep(device, "probe", {"rate": rate, "at": time.time()})
    return rate


def remember_speed(
    shape: PlannedShape,
    workload: Workload,
    train_tokens_per_second: float | None,
    evaluation_tokens_per_second: float | None,
    device: Device,
) -> None:
    """Keep how fast a finished run was, for later plans on this device; a run too short to tell changes nothing."""
    if train_tokens_per_second is None or evaluation_tokens_per_second is None:
        return
    seen = {
        "training": train_tokens_per_second * training_multiply_adds(shape, workload) / workload.sharing,
        "evaluation": evaluation_tokens_per_second * forward_multiply_adds(shape, workload.context_length),
    }
    keep(device, _key(shape, workload), seen)


def _key(shape: PlannedShape, workload: Workload) -> str:
    path = "" if workload.is_fast(shape) else "-reference"
    loading = loading_name(workload.precision, workload.quantization)
    return f"{shape.num_layers}x{shape.hidden_size}-{shape.num_parameters}-{loading}{path}"
