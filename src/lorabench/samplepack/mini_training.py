"""Pretrains a mini model in about a minute on two processor cores.

So little compute wants few tokens, many steps and much out of each: matrices are updated by Muon (momentum whose
singular values are made equal by a Newton-Schulz iteration, https://kellerjordan.github.io/posts/muon), everything
else by Adam; rows are short at first; the loss is fused with the output head, so that logits exist for one chunk at a
time only. The number of steps is fixed, never a time, so that a seed gives the same model on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

StepCallback = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

HEAD_CHUNK_TOKENS = 512
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that brings singular values near 1."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. A step sees `rows_per_step × row_length` tokens, the same in both phases."""

    num_steps: int = 240
    tokens_per_step: int = 1024
    short_row_length: int = 128
    short_share: float = 0.75
    """Share of the steps that have short rows; the others have rows of the full context."""
    matrix_rate: float = 0.012
    other_rate: float = 4e-3
    momentum: float = 0.9
    warmup_steps: int = 10
    decay_share: float = 0.6
    """Share of the steps, at the end, over which the rates fall to nothing."""
    newton_schulz_steps: int = 4

    @property
    def num_tokens(self) -> int:
        """Tokens trained on in all."""
        return self.num_steps * self.tokens_per_step

    def row_length(self, step: int, context_length: int) -> int:
        """Tokens per row at a step."""
        short = min(self.short_row_length, context_length)
        return short if step < self.short_share * self.num_steps else context_length

    def factor(self, step: int) -> float:
        """What the rates are multiplied by at a step."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = (self.num_steps - step) / max(1.0, self.decay_share * self.num_steps)
        return warm * min(1.0, left)


class _FusedHead(torch.autograd.Function):
    """Mean cross-entropy of hidden states [N, d] against targets [N] under an output matrix [V, d]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight)
        total = hidden.new_zeros(())
        for start in range(0, len(hidden), HEAD_CHUNK_TOKENS):
            chunk = slice(start, start + HEAD_CHUNK_TOKENS)
            logits = hidden[chunk] @ weight.T
            logits.sub_(torch.logsumexp(logits, dim=1, keepdim=True))
            wanted = targets[chunk, None]
            total -= logits.gather(1, wanted).sum()
            gradient = logits.exp_()
            gradient.scatter_add_(1, wanted, gradient.new_full((len(gradient), 1), -1.0))
            torch.mm(gradient, weight, out=hidden_gradient[chunk])
            weight_gradient.addmm_(gradient.T, hidden[chunk])
        ctx.save_for_backward(hidden_gradient.div_(len(hidden)), weight_gradient.div_(len(hidden)))
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return gradient * hidden_gradient, gradient * weight_gradient, None


class Muon:
    """Updates matrices by their orthogonalised momentum, all of one shape at once."""

    def __init__(self, matrices: Sequence[tuple[nn.Parameter, int]], schedule: Schedule) -> None:
        """`matrices`: each with the number of matrices that are stacked in it, side by side along its longer side."""
        self._schedule = schedule
        self._matrices = list(matrices)
        self._momenta = [torch.zeros_like(parameter) for parameter, _ in matrices]

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One update at `factor` times the rate; gradients are used up."""
        pieces: list[tuple[Tensor, Tensor]] = []
        for (parameter, num_stacked), momentum in zip(self._matrices, self._momenta, strict=True):
            assert parameter.grad is not None
            momentum.lerp_(parameter.grad, 1 - self._schedule.momentum)
            update = parameter.grad.lerp_(momentum, self._schedule.momentum)
            axis = 0 if parameter.shape[0] >= parameter.shape[1] else 1
            pieces += zip(parameter.chunk(num_stacked, axis), update.chunk(num_stacked, axis), strict=True)
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor, bool]]] = {}
        for weight, update in pieces:
            tall = weight.shape[0] > weight.shape[1]
            wide = update.T if tall else update
            by_shape.setdefault((wide.shape[0], wide.shape[1]), []).append((weight, wide, tall))
        for (short, long), group in by_shape.items():
            updates = orthogonalise(torch.stack([wide for _, wide, _ in group]), self._schedule.newton_schulz_steps)
            rate = self._schedule.matrix_rate * factor * (long / short) ** 0.25
            for (weight, _, tall), change in zip(group, updates, strict=True):
                weight.sub_(change.T if tall else change, alpha=rate)


def orthogonalise(matrices: Tensor, num_steps: int) -> Tensor:
    """Matrices [B, m, n], m ≤ n, with their singular values brought near 1 by a Newton-Schulz iteration."""
    first, second, third = NEWTON_SCHULZ
    result: Tensor = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(num_steps):
        square = result @ result.mT
        result = first * result + (second * square + third * (square @ square)) @ result
    return result


def pretrain(model: Any, stream: Tensor, *, prefix: int, schedule: Schedule, seed: int, on_step: StepCallback) -> float:
    """Train a causal model of Transformers on a stream of token ids [N]; returns the mean loss of the last steps.

    Every row is the prefix token and then tokens of the stream, as lorabench's own windows are. Rows of the full
    context come from the end of the stream, which the short ones have left unseen.
    """
    context_length = int(model.config.max_position_embeddings)
    body, head = model.base_model, model.get_output_embeddings().weight
    matrices, others = _sort_parameters(model)
    muon = Muon(matrices, schedule)
    adam = torch.optim.AdamW(others, lr=schedule.other_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    draw = torch.Generator().manual_seed(seed)
    model.train()
    late = 0.0
    slow_activations = _use_fused_activations(model)
    cut = int(schedule.short_share * len(stream))
    rows, used = _rows(stream[:cut], schedule.row_length(0, context_length), draw), 0
    for step in range(schedule.num_steps):
        length = schedule.row_length(step, context_length)
        num_rows = schedule.tokens_per_step // length
        if rows.shape[1] != length or used + num_rows > len(rows):
            rows, used = _rows(stream[:cut] if length < context_length else stream[cut:], length, draw), 0
        targets = rows[used : used + num_rows]
        used += num_rows
        inputs = torch.cat([targets.new_full((num_rows, 1), prefix), targets[:, :-1]], dim=1)
        hidden = body(input_ids=inputs, use_cache=False).last_hidden_state
        loss: Tensor = _FusedHead.apply(hidden.flatten(0, 1), head, targets.flatten())  # type: ignore[no-untyped-call]
        loss.backward()
        factor = schedule.factor(step)
        for group in adam.param_groups:
            group["lr"] = schedule.other_rate * factor
        muon.step(factor)
        adam.step()
        model.zero_grad(set_to_none=True)
        late = loss.item() if step == 0 else 0.95 * late + 0.05 * loss.item()
        on_step(step + 1, schedule.num_steps)
    for parent, name, activation in slow_activations:
        setattr(parent, name, activation)
    model.eval()
    return late


def _use_fused_activations(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Put PyTorch's one-kernel GELU in the place of GPT-2's six operations for the same function; returns what was."""
    replaced = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child).__name__ == "NewGELUActivation"
    ]
    for parent, name, _ in replaced:
        setattr(parent, name, nn.GELU(approximate="tanh"))
    return replaced


def _rows(stream: Tensor, length: int, draw: torch.Generator) -> Tensor:
    """The stream cut into rows [R, length], in a drawn order."""
    num_rows = len(stream) // length
    return stream[: num_rows * length].view(num_rows, length)[torch.randperm(num_rows, generator=draw)]


def _sort_parameters(model: Any) -> tuple[list[tuple[nn.Parameter, int]], list[nn.Parameter]]:
    """The layers' matrices, with how many are stacked in each, and all other parameters."""
    embeddings = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    matrices: list[tuple[nn.Parameter, int]] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and id(parameter) not in embeddings and "wpe" not in name:
            matrices.append((parameter, 3 if "c_attn" in name or "query_key_value" in name else 1))
        else:
            others.append(parameter)
    return matrices, others
