"""What one of two processes does in `test_ranks.py`: all cases, one after the other; rank 0 prints what came of them.

Usage: rank_cases.py FOLDER, with the addresses of torch's launcher in the environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from lorabench.training.ranks import ProcessRanks
from tests.training.test_loop import SETTINGS, Run
from tests.training.tiny import TinyAdapter

LONG = SETTINGS.model_copy(update={"epochs": 8, "learning_rate": 0.01})
STOP_AFTER = 7


class Unused(TinyAdapter):
    """One of its parameters is never used: it has no gradient, on no rank."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.ones(3))

    def named_parameters(self) -> Any:
        yield from super().named_parameters()
        yield "unused", self.unused

    def optimizer_groups(self) -> Any:
        (group,) = super().optimizer_groups()
        return [type(group)([*group.parameters, self.unused], weight_decay=0.5)]


def outcome(run: Run, ranks: ProcessRanks, **options: Any) -> dict[str, Any]:
    """What came of one call of the loop on this rank."""
    error = ""
    try:
        run.go(ranks=ranks, **options)
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    weights = [parameter.tolist() for _, parameter in run.adapter.named_parameters()]
    return {"losses": run.losses, "error": error, "weights": weights, "resumed_after": run.resumed_after}


def failing_at(rank: int, ranks: ProcessRanks, step: int, error: Exception) -> Any:
    """A base's loss that fails on one rank in one step."""

    def spoil(run: Run) -> None:
        whole, seen = run.base.loss, [0]

        def loss(*values: Any) -> torch.Tensor:
            seen[0] += 1
            if ranks.rank == rank and seen[0] == step:
                raise error
            return whole(*values)

        run.base.loss = loss  # type: ignore[method-assign, assignment]

    return spoil


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    ranks = ProcessRanks(torch.device("cpu"))
    found: dict[str, Any] = {}
    for dropout in (0.0, 0.3):
        found[f"long {dropout}"] = outcome(Run(folder / f"long-{dropout}", dropout, settings=LONG), ranks)
    found["unused"] = outcome(Run(folder / "unused", adapter=Unused), ranks)
    found["stopped"] = outcome(Run(folder / "stopped"), ranks, stop_after=STOP_AFTER)
    found["taken up"] = outcome(Run(folder / "by-one"), ranks)
    for rank in (0, 1):
        for name, error in (("memory", MemoryError("full")), ("failure", ValueError("a strange thing"))):
            run = Run(folder / f"{name}-{rank}")
            failing_at(rank, ranks, 3, error)(run)
            found[f"{name} {rank}"] = outcome(run, ranks)
    if ranks.is_first:
        print(json.dumps(found))
    ranks.close()


if __name__ == "__main__":
    main()
