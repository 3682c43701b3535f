"""The live view's lines: what is done, what is being done, and when it will end, in whatever width there is."""

from __future__ import annotations

import time

from rich.text import Text

from lorabench.cli.views.state import State
from lorabench.cli.views.text import clean
from lorabench.core.formatting import duration

MAX_BAR_WIDTH = 40
SHARE_OF_TRAINING = 0.95
"""Of a run; the rest is what comes after its last step."""


def live_lines(state: State, remaining: str, width: int) -> Text:
    """At most three lines, none wider than `width`: the experiment, the run, the phase."""
    lines = []
    elapsed = duration(time.monotonic() - state.started)
    if state.num_runs:
        share_of_run = SHARE_OF_TRAINING * state.share_trained if state.run_id is not None else 0.0
        overall = (state.num_done + share_of_run) / state.num_runs
        skipped = f", {state.num_skipped} skipped" if state.num_skipped else ""
        facts = [f"{state.num_done} of {state.num_runs} runs{skipped}", elapsed, remaining]
        lines.append(_line(overall, facts, width, "green"))
    if state.run_id is not None:
        lines.append(Text(clean(state.run_id, max(8, width - 1)), style="bold"))
    if state.phase:
        share = min(1.0, state.done / state.total) if state.total else None
        facts = [clean(state.phase)]
        if state.total and state.unit:
            facts.append(f"{state.done:,.0f}/{state.total:,.0f} {state.unit}")
        elif state.total and share is not None:
            facts.append(f"{share:.0%}")
        facts += [f"{clean(name)} {clean(value)}" for name, value in state.fields.items()]
        lines.append(_line(share, facts, width, "cyan"))
    for line in lines:
        line.truncate(max(1, width - 1), overflow="ellipsis")
    return Text("\n").join(lines)


def _line(share: float | None, facts: list[str], width: int, style: str) -> Text:
    """A bar, if there is a share and room for one, and the facts beside it."""
    text = "  ".join(fact for fact in facts if fact)
    room = min(MAX_BAR_WIDTH, width - len(text) - 4)
    if share is None or room < 8:
        return Text(text)
    full = round(room * max(0.0, min(1.0, share)))
    return Text.assemble(("━" * full, style), ("━" * (room - full), "dim"), "  ", text)
