"""A rung of a search as a table: on a terminal, and as plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from lorabench.analysis.race import Race, Racer
from lorabench.cli.views.text import clean, styled
from lorabench.core.formatting import bits, plural, span
from lorabench.runs.decision import Decision

WIDTH_OF_FIGURES = 42
"""Columns of seeds, figure and interval, with what lies between."""


def race_table(decision: Decision) -> Table:
    """All configurations side by side, the lowest first; why one leaves, the line of its run says."""
    num_going_on = sum(row.goes_on for row in decision.rows)
    title = f"{decision.corpus}, {decision.where}: {num_going_on} of {len(decision.rows)} go on"
    table = _table(title)
    for row in decision.rows:
        style = "" if row.goes_on else "dim"
        table.add_row(
            styled(row.label, style),
            styled(row.num_seeds, style),
            styled(bits(row.bits_per_byte), style),
            styled(span(row.interval), style),
            styled("goes on", "green") if row.goes_on else styled("leaves", style),
        )
    return table


def live_table(race: Race, losses: Mapping[str, str], width: int, num_rows: int) -> Table:
    """The configurations while a rung is under way: scored ones, those that train with their loss, and who left why.

    A row each, `num_rows` at most. `losses` are of the runs that are under way, by run id.
    """
    table = _table(f"{race.corpus}, {race.where}: {race.num_scored} of {race.num_here} scored")
    label, state = table.columns[0], table.columns[-1]
    label.no_wrap, label.max_width = True, max(12, width // 3)
    state.max_width = max(10, width - label.max_width - WIDTH_OF_FIGURES)
    racers = sorted(race.racers, key=lambda racer: _order(racer, losses))  # stable: as they stand within each kind
    shown = racers if len(racers) <= num_rows else racers[: max(1, num_rows - 1)]
    for racer in shown:
        style = "dim" if racer.stopped is not None else ""
        table.add_row(
            styled(racer.label, style),
            styled(f"{racer.num_scored}/{len(racer.run_ids)}", style),
            styled(bits(racer.bits_per_byte), style),
            styled(span(racer.interval), style),
            _state(racer, losses),
        )
    if len(shown) < len(racers):
        table.add_row(styled(f"and {len(racers) - len(shown)} more", "dim"))
    return table


def reached_line(race: Race, racer: Racer) -> Text:
    """That a configuration has its figure at a rung, and its place so far."""
    scored = [other for other in race.racers if other.is_scored]
    place = 1 + sum(other.bits_per_byte < racer.bits_per_byte for other in scored)  # type: ignore[operator]
    interval = "" if racer.interval is None else f" (95 %: {span(racer.interval)})"
    num_to_come = race.num_here - len(scored)
    to_come = f", {num_to_come} to come" if num_to_come else ""
    figure = f"{bits(racer.bits_per_byte)} bits/byte{interval}"
    seeds = f" over {plural(len(racer.run_ids), 'seed')}" if len(racer.run_ids) > 1 else ""
    return Text(
        f"{clean(race.corpus)}, {race.where}: {clean(racer.label)}: {figure}{seeds}, place {place} of "
        f"{len(scored)} so far{to_come}"
    )


def _table(title: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title=styled(title, "bold"), title_justify="left")
    table.add_column("configuration")
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("bits/byte", justify="right", no_wrap=True)
    table.add_column("95 %", no_wrap=True)
    table.add_column("", no_wrap=True)
    return table


def _order(racer: Racer, losses: Mapping[str, str]) -> int:
    """Scored, under way, waiting, stopped."""
    if racer.is_scored or racer.stopped is not None:
        return 0 if racer.is_scored else 3
    return 1 if losses.keys() & {*racer.run_ids} else 2


def _state(racer: Racer, losses: Mapping[str, str]) -> Text:
    """What a configuration is doing."""
    if racer.stopped is not None:
        return styled(racer.stopped, "dim")
    if racer.is_scored:
        return styled("scored", "green")
    under_way = [losses[run_id] for run_id in racer.run_ids if run_id in losses]
    if not under_way:
        return styled("waiting")
    loss = ", ".join(filter(None, under_way))
    return styled(f"loss {loss}" if loss else "training", "cyan")
