"""The live view's lines: what is done, what is being done, and when it will end, in whatever width there is."""

from __future__ import annotations

import time

from rich.text import Text

from lorabench.cli.views.state import State, Work
from lorabench.cli.views.text import clean
from lorabench.core.formatting import duration

MAX_BAR_WIDTH = 40
WORKER_BAR_WIDTH = 12
SHARE_OF_TRAINING = 0.95
"""Of a run; the rest is what comes after its last step."""


def live_lines(state: State, remaining: str, width: int) -> Text:
    """No line wider than `width`: the experiment; of one worker the run and the phase; of several a line each."""
    lines = []
    works = [work for work in state.works.values() if work.run_id is not None or work.phase]
    elapsed = duration(time.monotonic() - state.started)
    if state.num_runs:
        share_of_runs = SHARE_OF_TRAINING * sum(work.share_trained for work in works)
        overall = (state.num_done + share_of_runs) / state.num_runs
        skipped = f", {state.num_skipped} skipped" if state.num_skipped else ""
        facts = [f"{state.num_done} of {state.num_runs} runs{skipped}", elapsed, remaining]
        lines.append(_line(overall, facts, width, "green"))
    for work in works:
        if work.worker:
            lines.append(_worker_line(work, width))
            continue
        if work.run_id is not None:
            lines.append(Text(clean(work.run_id, max(8, width - 1)), style="bold"))
        if work.phase:
            facts = _phase(work) if state.num_runs else [*_phase(work), remaining]
            lines.append(_line(_share(work), facts, width, "cyan"))
    for line in lines:
        line.truncate(max(1, width - 1), overflow="ellipsis")
    return Text("\n").join(lines)


def _share(work: Work) -> float | None:
    return min(1.0, work.done / work.total) if work.total else None


def _phase(work: Work) -> list[str]:
    facts, share = [clean(work.phase)], _share(work)
    if work.total and work.unit:
        facts.append(f"{work.done:,.0f}/{work.total:,.0f} {work.unit}")
    elif share is not None:
        facts.append(f"{share:.0%}")
    return facts + [f"{clean(name)} {clean(value)}" for name, value in work.fields.items()]


def _worker_line(work: Work, width: int) -> Text:
    """The worker's name, a short bar, the phase, and as much of the run's id as there is room for."""
    facts, share = "  ".join(_phase(work)), _share(work)
    full = round(WORKER_BAR_WIDTH * (share or 0.0))
    bar = [("━" * full, "cyan"), ("━" * (WORKER_BAR_WIDTH - full), "dim")] if width >= 60 else []
    line = Text.assemble((clean(work.worker, 12), "bold"), "  ", *bar, "  " if bar else "", facts)
    room = width - len(line) - 3
    if work.run_id is not None and room >= 8:
        line.append(f"  {clean(work.run_id, room)}", "dim")
    return line


def _line(share: float | None, facts: list[str], width: int, style: str) -> Text:
    """A bar, if there is a share and room for one, and the facts beside it."""
    text = "  ".join(fact for fact in facts if fact)
    room = min(MAX_BAR_WIDTH, width - len(text) - 4)
    if share is None or room < 8:
        return Text(text)
    full = round(room * max(0.0, min(1.0, share)))
    return Text.assemble(("━" * full, style), ("━" * (room - full), "dim"), "  ", text)
