"""Estimates a run's peak memory from shapes: what is held all along, and what a step holds at most. Imports no torch.

What the fast path keeps for the backward pass is counted tensor by tensor. Of Transformers' own layers it is a number
of bytes for each output of a linear layer, which was measured (`benchmarks/measure_memory.py`).
"""

from __future__ import annotations

import math

from lorabench.experiment.workload import ANSWER_ROWS, ANSWER_TOKENS, PlannedShape, Workload
from lorabench.fast.declarations import FAST_TYPES, MAX_LOGITS
from lorabench.methods.registry import method_of

PROCESS_BYTES = 680_000_000
"""Python and the libraries themselves, in a run."""
PROMPT_TOKENS = 100
"""Of a question, about."""
HOLES = 1.2
"""What is kept takes so many times its size: tensors that were let go of meanwhile leave holes between in the heap."""
STREAM_BYTES = {"gpt_neox": 4}
"""Per layer, token and unit of width on the fast path: the float32 residual stream, once where attention and MLP are
parallel, else before each of them."""
FAST_GRADIENT_LAYERS = 1
"""Layers of what is kept, whose size the gradients have that are on their way through a layer."""
FAST_CHECKPOINTED_LAYERS = 2
"""With checkpointing: a layer's activations once more, and gradients beside those on their way."""
REFERENCE_BYTES = {"fp32": 13, "bf16": 10, "fp16": 10}
"""Per output of a linear layer that Transformers' layers keep for the backward pass, holes and gradients included:
norms and parts of attention are computed in float32 in either precision."""
REFERENCE_CHECKPOINTED_LAYERS = 4
"""Of them there are as many layers at once with checkpointing."""
QUANTIZED_BYTES = {"nf4": 0.5 + 4 / 64, "nf4-double": 0.5 + 1 / 64 + 4 / 16_384, "int8": 1.0, "fp8": 1.0}
"""Of a weight in a quantised linear layer: its code, and its share of a block's scale."""
WHOLE_WEIGHT_BYTES = 16
"""Per weight of the largest quantised layer: two that read one input are made whole together, in float32 where
bitsandbytes multiplies on a processor, and again in the backward pass."""
BYTES_PER_TRAINED = 8
"""A trained weight and its gradient, float32 each."""
STATE_BYTES = {
    "adamw": 8.0,
    "adamw-8bit": 2.0 + 8 / 256,
    "paged-adamw-8bit": 2.0 + 8 / 256,
    "muon": 4.0,
    "adafactor": 0.0,
    "sgd": 4.0,
    "schedule-free": 12.0,
}
"""Per trained weight: two moments in float32, or in eight bits with a scale for each block of 256; one momentum; rows
and columns alone; squares and two points."""
STEP_COPIES = {"adamw-8bit": 9, "paged-adamw-8bit": 9, "adafactor": 2, "schedule-free": 4}
"""Of the largest weight where all are trained, in float32, that an optimizer makes while it changes it: bitsandbytes
makes whole moments on a processor. Smaller weights, as those of adapters, do not count."""
LOGIT_BYTES = {"kept": 4, "passing": 8}
"""Per logit where a model makes them itself: those of a micro-batch, and on top those of one pass."""
REFERENCE_LOGIT_BYTES = 12
"""Per logit beside itself, where torch computes its cross-entropy: in float32, as a logarithm and as a gradient."""
LOGIT_TOKENS = 256
"""Whose logits are held at once, where the model's family is known."""


def estimate_memory(shape: PlannedShape, workload: Workload) -> int:
    """Peak bytes of a run, or of scoring the base when nothing is trained."""
    width = _width(workload)
    base = PROCESS_BYTES + _base_bytes(shape, workload.quantization, width)
    answers = _answer_bytes(shape, workload, width)
    if workload.adapter is None:
        return base + answers
    method = method_of(workload.adapter)
    each = BYTES_PER_TRAINED + STATE_BYTES[workload.optimizer] + method.statistics_bytes
    trained = round(each * method.count_optimized(shape, workload.adapter, workload.target_modules))
    trained += width * shape.num_parameters * method.keeps_published
    passing = (
        _fast_bytes(shape, workload, width) if workload.is_fast(shape) else _reference_bytes(shape, workload, width)
    )
    table = 4 * shape.vocabulary_size * shape.hidden_size if method.trains_base else 0
    step = STEP_COPIES.get(workload.optimizer, 0) * table
    return base + trained + max(passing, answers, step)


def kept_by_layers(shape: PlannedShape, workload: Workload) -> int:
    """Bytes that the layers keep on the fast path for the backward pass, without checkpointing.

    Of a layer: inputs of its norms, the residual stream; queries, keys and values; what attention gives; the inputs of
    the activation; and what the adapter needs. Outputs that are added to the residual stream are not kept.
    """
    assert workload.adapter is not None
    width, layers, hidden = _width(workload), shape.num_layers, shape.hidden_size
    outputs = sum(outputs for _, outputs in shape.linears.values())
    each = width * (outputs - layers * hidden) + STREAM_BYTES.get(shape.family, 8) * layers * hidden
    own = method_of(workload.adapter).fast_bytes(shape, workload.adapter, workload.target_modules, width)
    return workload.rows_at_once * workload.context_length * (each + own)


def _fast_bytes(shape: PlannedShape, workload: Workload, width: int) -> int:
    """Of a forward and backward pass on the fast path, at most."""
    tokens, kept = workload.rows_at_once * workload.context_length, kept_by_layers(shape, workload)
    layer, logits = kept // shape.num_layers, _logit_bytes(shape, tokens, width)
    if workload.checkpointing:
        inputs = tokens * shape.num_layers * shape.hidden_size * (4 + width)
        kept = min(kept, inputs + FAST_CHECKPOINTED_LAYERS * layer)
    return round(HOLES * kept) + FAST_GRADIENT_LAYERS * layer + logits + _whole_bytes(shape, workload)


def _reference_bytes(shape: PlannedShape, workload: Workload, width: int) -> int:
    """Of a forward and backward pass through Transformers' and PEFT's own modules, at most."""
    assert workload.adapter is not None
    tokens = workload.rows_at_once * workload.context_length
    outputs = sum(outputs for _, outputs in shape.linears.values()) + shape.num_layers * shape.hidden_size
    method = method_of(workload.adapter)
    kept = tokens * outputs * (REFERENCE_BYTES[workload.precision] + method.reference_bytes)
    matrices = [math.prod(shape.linears[path]) for path in workload.target_modules if path in shape.linears]
    kept += method.matrix_bytes[0] * sum(matrices)
    if workload.checkpointing:
        inputs = tokens * shape.num_layers * shape.hidden_size * (4 + width)
        kept = min(kept, inputs + REFERENCE_CHECKPOINTED_LAYERS * kept // shape.num_layers)
    if method.trains_base and width < 4:  # products read copies of the weights in half precision
        kept += width * shape.num_parameters
    kept += method.matrix_bytes[1] * max(matrices, default=0)
    return kept + _logit_bytes(shape, tokens, width + REFERENCE_LOGIT_BYTES) + _whole_bytes(shape, workload)


def _width(workload: Workload) -> int:
    """Bytes of a weight or an activation."""
    return 4 if workload.precision == "fp32" else 2


def _base_bytes(shape: PlannedShape, quantization: str, width: int) -> int:
    """Of the frozen base's weights; quantised, its linear layers take what their codes and scales take."""
    if quantization == "none":
        return shape.num_parameters * width
    quantised = sum(inputs * outputs for inputs, outputs in shape.linears.values())
    return round((shape.num_parameters - quantised) * width + quantised * QUANTIZED_BYTES[quantization])


def _whole_bytes(shape: PlannedShape, workload: Workload) -> int:
    """Of quantised weights while they are made whole."""
    if workload.quantization == "none":
        return 0
    return WHOLE_WEIGHT_BYTES * max(inputs * outputs for inputs, outputs in shape.linears.values())


def _logit_bytes(shape: PlannedShape, tokens: int, width: int) -> int:
    if shape.family in FAST_TYPES:
        return min(tokens, LOGIT_TOKENS) * shape.vocabulary_size * width
    logits = tokens * shape.vocabulary_size
    return LOGIT_BYTES["kept"] * logits + LOGIT_BYTES["passing"] * min(logits, MAX_LOGITS)


def _answer_bytes(shape: PlannedShape, workload: Workload, width: int) -> int:
    """Keys and values of the answers that are written at once, where every head has its own."""
    num_answers, length = workload.answers
    tokens = min(ANSWER_TOKENS, min(num_answers, ANSWER_ROWS) * (PROMPT_TOKENS + length))
    return 2 * shape.num_layers * shape.hidden_size * width * tokens
