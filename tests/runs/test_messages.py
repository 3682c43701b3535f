"""What a worker tells the command that it works for arrives as it was told."""

from __future__ import annotations

import math

from lorabench.runs.messages import Event, ForwardingView, Report


def test_everything_told_travels_as_json() -> None:
    events: list[Event] = []
    view = ForwardingView(events.append)
    view.start_run("run-a", 7, 20)
    view.phase("training", 20, "steps")
    view.message("naïve “café”\n")
    view.step(1, 20, math.nan, 812.5)
    view.progress("fetching", 3, None)
    assert [(event.call, event.values[0]) for event in events] == [
        ("start_run", "run-a"),
        ("phase", "training"),
        ("message", "naïve “café”\n"),
        ("step", 1),
        ("progress", "fetching"),
    ]
    lines = [Report(event=event).model_dump_json() for event in events]
    assert not any("\n" in line for line in lines)
    read = [Report.model_validate_json(line).event for line in lines]
    assert repr(read) == repr(events)
    assert [type(value) for value in read[3].values] == [int, int, float, float]  # type: ignore[union-attr]


def test_mere_progress_is_told_now_and_then_and_its_end_always() -> None:
    events: list[Event] = []
    now = [0.0]
    view = ForwardingView(events.append, seconds=1.0, now=lambda: now[0])
    for step in range(1, 101):
        now[0] += 0.1
        view.step(step, 100, 1.0, 1.0)
    told = [event.values[0] for event in events]
    assert (told[0], told[-1], len(told)) == (1, 100, 11)
    view.progress("test", 1, 100)
    assert len(events) == 12
