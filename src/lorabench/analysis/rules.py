"""What intervals and verdicts (`statistics.py`, `best.py`) and what can be detected (`detectable.py`) go by alike."""

from __future__ import annotations

SIGNIFICANCE = 0.05
"""A corrected p-value below it is a verdict."""
LENGTH_EXPONENT = 1.5
"""Working model for the degrees of freedom: a document's variance grows with bytes ** 1.5, between independent bytes
(exponent 1) and a shift of the whole document (2)."""
OWN_SHARE = 0.5
"""Of a pair's own spread over seeds, the rest being that of all pairs alike: chosen on recorded results."""


def factor_for(num_candidates: int) -> float:
    """What a two-sided p-value is multiplied by where any of so many may be the best."""
    return max(1.0, (num_candidates - 1) / 2.0)
