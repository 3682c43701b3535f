"""What a recommended configuration costs on corpora that it was not trained on, beside what it gains on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lorabench.analysis.candidates import CorpusGroup, by_configuration, contrast
from lorabench.analysis.findings import DriftCell, Recommendation, Verdict
from lorabench.analysis.pairing import Measured
from lorabench.core.formatting import listed, percent_and_span, plural

MAX_NAMED = 2
"""Corpora elsewhere in a sentence, the worst first."""


@dataclass(frozen=True)
class _Trade:
    """A configuration on the corpora of a recommendation, with what it changes elsewhere."""

    items: Sequence[Measured]
    cells: Sequence[DriftCell]

    @property
    def gain(self) -> float:
        """Mean gain over the base, as a share of the base's figure."""
        shares = [_gain_of(item) or 0.0 for item in self.items]
        return sum(shares) / len(shares)

    @property
    def loss(self) -> float:
        """The largest loss elsewhere beyond chance, as a share of the base's figure there; 0 without any."""
        return max((_share(cell) for cell in self.cells if cell.verdict is Verdict.HIGHER), default=0.0)


Elsewhere = Mapping[str, Sequence[DriftCell]]
"""By key of a candidate."""


def by_candidate(drift: Sequence[DriftCell]) -> Elsewhere:
    """What each candidate costs or gives elsewhere."""
    cells: dict[str, list[DriftCell]] = {}
    for cell in drift:
        cells.setdefault(cell.candidate, []).append(cell)
    return cells


def with_cost_elsewhere(choice: Recommendation, groups: Sequence[CorpusGroup], elsewhere: Elsewhere) -> Recommendation:
    """The recommendation with what it costs elsewhere; where that is more than it gains, with the better trade."""
    trades = _trades(choice, groups, elsewhere)
    chosen = next((trade for trade in trades if {item.key for item in trade.items} == {*choice.candidates}), None)
    if chosen is None or not chosen.cells:
        return choice
    sentences = [_cost(chosen)]
    if chosen.loss > chosen.gain:
        sentences.insert(0, _better_trade(chosen, trades))
    return replace(choice, elsewhere=tuple(sentences))


def _trades(choice: Recommendation, groups: Sequence[CorpusGroup], elsewhere: Elsewhere) -> list[_Trade]:
    """Configurations with a gain on each of the choice's corpora."""
    chosen = {*choice.candidates}
    own = [group for group in groups if any(item.key in chosen for item in group.candidates)]
    return [
        _Trade(items, [cell for item in items for cell in elsewhere.get(item.key, ())])
        for items in by_configuration(own)
        if len(items) == len(own) and all(_gain_of(item) is not None for item in items)
    ]


def _gain_of(item: Measured) -> float | None:
    """As a share of the base's figure."""
    gain, base = item.shown.gain, item.shown.base_bits_per_byte
    return gain.estimate / base if gain is not None and base else None


def _share(cell: DriftCell) -> float:
    return cell.change.estimate / cell.base_bits_per_byte if cell.base_bits_per_byte else 0.0


def _where(cell: DriftCell, trade: _Trade) -> str:
    return cell.scored_on if len(trade.items) == 1 else f"{cell.scored_on} after {cell.trained_on}"


def _cost(trade: _Trade) -> str:
    """`Elsewhere it costs 25 % (21 to 29) on news and 37 % (30 to 44) on code`."""
    worse = sorted((cell for cell in trade.cells if cell.verdict is Verdict.HIGHER), key=_share, reverse=True)
    if not worse:
        return f"It costs nothing detectable on {listed(list(dict.fromkeys(cell.scored_on for cell in trade.cells)))}"
    shown = [f"{percent_and_span(c.change, c.base_bits_per_byte)} on {_where(c, trade)}" for c in worse[:MAX_NAMED]]
    more = [plural(len(worse) - MAX_NAMED, "other")] if len(worse) > MAX_NAMED else []
    return f"Elsewhere it costs {listed([*shown, *more])}"


def _better_trade(chosen: _Trade, trades: Sequence[_Trade]) -> str:
    worst = max((cell for cell in chosen.cells if cell.verdict is Verdict.HIGHER), key=_share)
    loses = f"On {_where(worst, chosen)} it loses {_percent(chosen.loss)}, more than it gains ({_percent(chosen.gain)})"
    places = {(cell.trained_on, cell.scored_on) for cell in chosen.cells}
    others = [
        trade
        for trade in trades
        if {(cell.trained_on, cell.scored_on) for cell in trade.cells} == places
        and all(item.shown.versus_base is Verdict.LOWER for item in trade.items)
    ]
    best = max(others, key=lambda trade: trade.gain - trade.loss, default=chosen)
    if best is chosen or best.gain - best.loss <= chosen.gain - chosen.loss:
        return f"{loses}; no other that gains is a better trade"
    label = contrast(best.items[0].shown.label, chosen.items[0].shown.label)
    return f"{loses}; {label} gains {_percent(best.gain)} and loses at most {_percent(best.loss)}"


def _percent(share: float) -> str:
    return f"{100.0 * share:.{0 if share >= 0.0995 else 1}f}\u00a0%"
