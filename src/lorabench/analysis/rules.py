"""What intervals and verdicts (`statistics.py`, `best.py`) and what can be detected (`detectable.py`) go by alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SIGNIFICANCE = 0.05
"""A corrected p-value below it is a verdict."""
LENGTH_EXPONENT = 1.5
"""Working model for the degrees of freedom: a document's variance grows with bytes ** 1.5, between independent bytes
(exponent 1) and a shift of the whole document (2)."""


def own_share(num_seeds: int) -> float:
    """How much of a pair's spread over seeds is its own, the rest being that of all pairs alike.

    The pool counts as one degree of freedom more: chosen on recorded results, whose pairs are never quite alike.
    """
    return (num_seeds - 1) / num_seeds


def factor_for(num_candidates: int) -> float:
    """What a two-sided p-value is multiplied by where any of so many may be the best."""
    return max(1.0, (num_candidates - 1) / 2.0)


def document_freedom(num_bytes: npt.NDArray[np.float64]) -> float:
    """Degrees of freedom of the cluster-robust variance (CR2) over documents of these lengths [D]: 2 E[V]² / Var[V].

    With residuals (I - h 1')ε the variance is a quadratic form ε'Bε, B = A - u1' - 1u' + c, u = Ah, c = h'Ah. NaN for
    one document. Bell and McCaffrey 2002.
    """
    if len(num_bytes) < 2:
        return float("nan")
    leverage, working = num_bytes / num_bytes.sum(), num_bytes**LENGTH_EXPONENT
    weights = 1.0 / (1.0 - leverage)
    moved = weights * leverage
    constant = float(moved @ leverage)
    total, first, second = float(working.sum()), float(working @ moved), float(working @ moved**2)
    trace = float(working @ (weights - 2.0 * moved + constant))
    diagonal = float(working**2 @ ((weights - 2.0 * moved + constant) ** 2 - (constant - 2.0 * moved) ** 2))
    rest = (constant * total) ** 2 - 4.0 * constant * total * first + 2.0 * total * second + 2.0 * first**2
    return max(1.0, trace**2 / (diagonal + rest))
