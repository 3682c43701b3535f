"""The results of `lorabench bench` for people."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.bench.measure import Rate, Result
from lorabench.bench.profile import Part
from lorabench.cli.views.rows import print_rows
from lorabench.core.formatting import rough_size


def print_results(results: Sequence[Result]) -> None:
    """A heading and one row per point."""
    first = results[0]
    print(f"{first.model} ({first.num_parameters / 1e6:.0f} M parameters, {first.weights} weights) on {first.device}")
    how = f"{first.execution_path} path"
    print(f"{how}{f' ({first.execution_reason})' if first.execution_reason else ''}; adapters on all linear layers")
    compiling = f" ({first.compile_seconds:.1f} s of it compiling kernels, this once)" if first.compile_seconds else ""
    print(f"loaded in {first.load_seconds:.1f} s{compiling}; the first step took {first.first_step_seconds:.2f} s")
    rows = [
        {
            "precision": result.precision,
            "rank": result.point.rank,
            "context": result.point.context_length,
            "batch": result.point.batch_size,
            "trained tokens/s": _rate(result.training),
            "of the limit": f"{result.share_of_limit:.0%}",
            "scored tokens/s": _rate(result.evaluation),
            "of its limit": f"{result.evaluation.median / result.limit.evaluation_tokens_per_second:.0%}",
            "peak memory": rough_size(result.peak_memory_bytes),
        }
        for result in results
    ]
    print_rows(rows, tuple(rows[0]))
    print(
        f"Medians, with quartiles, of {first.point.num_steps} steps after the warm-up. The limit is what the matrix "
        "products of a step alone would take."
    )


def print_profile(parts: Sequence[Part]) -> None:
    """Where the time of one step went."""
    total = sum(part.seconds for part in parts)
    print(f"One step: {total:.3f} s")
    rows = [
        {
            "part": part.name,
            "seconds": f"{part.seconds:.3f}",
            "share": f"{part.seconds / total:.1%}",
            "operations": part.num_calls,
        }
        for part in parts
    ]
    print_rows(rows, tuple(rows[0]))


def _rate(rate: Rate) -> str:
    return f"{rate.median:,.0f} ({rate.low:,.0f} to {rate.high:,.0f})"
