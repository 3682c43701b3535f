"""Estimates how long a run takes from shapes and from how fast this machine is. Imports no torch.

Work is counted in multiply-adds of the matrix products. Their speed is what runs of the same model and precision were
seen to reach on this machine. Before there was one it is, on a processor, a share of what a short probe with numpy
reaches and a fixed time per layer for what is not a product; on a GPU the products, bytes and launches per second that
were measured when something first ran on it, and before that what the card's maker publishes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from lorabench.core.cards import Card, find_card
from lorabench.core.device import Device
from lorabench.core.device_rates import DeviceRates
from lorabench.core.machine import num_whole_cores
from lorabench.core.probe import multiply_adds_per_core
from lorabench.experiment.calibration import keep, measured_rates, read_calibration
from lorabench.experiment.identity import loading_name
from lorabench.experiment.memory import estimate_memory
from lorabench.experiment.workload import ANSWER_ROWS, PlannedShape, Workload
from lorabench.methods.registry import method_of

START_SECONDS = 5.0
"""Per experiment: Python's own start, importing the libraries."""
ASSUMED_START_SECONDS = {"loading": 5.0, "report": 3.0}
"""Per experiment, until this machine was seen to do it: loading the first base, building the report."""
FIXED_SECONDS = 0.6
"""Per run: attaching, saving, writing the record."""
SAMPLE_SECONDS_PER_LAYER = 0.03
"""Writing the sample continuations with the base and with the adapter, on a processor."""
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
SHARE_OF_PRODUCTS = 0.82
"""Of the rate of one large product: what those of a step reached on an H200."""
CARD_BYTES = {"training": 800, "evaluation": 270}
"""Per token, layer and unit of width: what everything but products moves once passes are compiled, as the time of steps
on an H200 says; evaluation in proportion."""
LAYER_LAUNCHES = {"training": 64, "evaluation": 20}
"""Per layer and micro-batch, as they are counted on meta tensors: pieces of work that the processor hands to a GPU."""
ASSUMED_BF16_GAIN = {"cpu": 3.0, "gpu": 2.0}
PROBE_LIFE_SECONDS = 3600.0
"""Then the processor is probed again: its clock may have changed."""
EVALUATION_TOKENS = 2048
"""Scored at once."""


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
    products = SHARE_OF_PRODUCTS * rates.products(workload.precision) / slowdown
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
