"""A search while a rung is under way: a table on a terminal, a line for each configuration elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

import lorabench
from lorabench.analysis.race import Race, Racer, read_races, write_races
from lorabench.analysis.statistics import Interval
from lorabench.cli.views.race import live_table, reached_line
from lorabench.cli.views.view import LiveView, PlainView
from lorabench.records.store import load_records
from tests.runs.conftest import ExperimentWriter
from tests.runs.test_search import SEARCH, TRAINING, write

RACE = Race(
    "news",
    "rung 2 of 3 (0.111 of its steps)",
    (
        Racer("rank 8, rate 0.001", ("a",), 1, 1.1234, Interval(1.1234, 1.1, 1.15, 40, 1), None),
        Racer("rank 16, rate 0.1 [red]", ("b",), 1, 1.5, None, None),
        Racer("rank 2, rate 0.1", ("c",), 0, None, None, None),
        Racer("rank 4, rate 0.1", ("d",), 0, None, None, None),
        Racer("rank 8, rate 9", ("e",), 1, 2.5, None, "stopped at rung 1 of 3 (0.037 of its steps): too high"),
    ),
)


def lines_of(table: object, width: int = 140) -> list[str]:
    shown = io.StringIO()
    Console(file=shown, width=width).print(table)
    return [" ".join(line.split()) for line in shown.getvalue().splitlines()]


def test_all_configurations_are_side_by_side() -> None:
    """Scored, under way, waiting, stopped."""
    title, headings, *rows = lines_of(live_table(RACE, {"d": "2.345", "x": "9"}, 200, 10), 200)
    assert title == "news, rung 2 of 3 (0.111 of its steps): 2 of 4 scored"
    assert headings == "configuration seeds bits/byte 95 %"
    assert rows == [
        "rank 8, rate 0.001 1/1 1.1234 1.100 to 1.150 scored",
        "rank 16, rate 0.1 [red] 1/1 1.5000 – scored",
        "rank 4, rate 0.1 0/1 – – loss 2.345",
        "rank 2, rate 0.1 0/1 – – waiting",
        "rank 8, rate 9 1/1 2.5000 – stopped at rung 1 of 3 (0.037 of its steps): too high",
    ]
    assert lines_of(live_table(RACE, {}, 200, 3), 200)[2:] == [*rows[:2], "and 3 more"]
    narrow = lines_of(live_table(RACE, {}, 80, 9), 80)
    assert len(narrow) == 7, "a line each"
    assert narrow[-1] == "rank 8, rate 9 1/1 2.5000 – stopped at …"


def test_a_line_says_a_configurations_place_so_far() -> None:
    where = "news, rung 2 of 3 (0.111 of its steps)"
    lines = [reached_line(RACE, racer).plain for racer in RACE.racers[:2]]
    assert lines == [
        f"{where}: rank 8, rate 0.001: 1.1234 bits/byte (95 %: 1.100 to 1.150), place 1 of 2 so far, 2 to come",
        f"{where}: rank 16, rate 0.1 [red]: 1.5000 bits/byte, place 2 of 2 so far, 2 to come",
    ]


class Watched(LiveView):
    """Keeps what the table shows whenever a run has a step."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO(), force_terminal=True, width=200, height=40, color_system=None))
        self.tables: list[list[str]] = []

    def step(self, step: int, total: int, loss: float, tokens_per_second: float) -> None:
        super().step(step, total, loss, tokens_per_second)
        self.tables.append(lines_of(self._render(), 200))


class Listened(PlainView):
    """Keeps the rungs that it is told of."""

    def __init__(self) -> None:
        self.shown = io.StringIO()
        super().__init__(Console(file=self.shown, width=200))
        self.told: list[Sequence[Race]] = []
        self.kept: list[Sequence[Race]] = []
        self.output_dir: Path | None = None

    def races(self, races: Sequence[Race]) -> None:
        super().races(races)
        self.told.append(races)
        if self.output_dir is not None:
            self.kept.append(read_races(self.output_dir, "tiny"))


def test_an_experiment_that_searches_no_more_shows_no_rung_of_its_search(
    experiment: ExperimentWriter, tmp_path: Path
) -> None:
    write_races(tmp_path / "out", "tiny", (RACE,))
    lorabench.run(experiment(), tmp_path / "out", trackers=["none"], view=Listened())
    assert read_races(tmp_path / "out", "tiny") == ()
    assert "rung 2 of 3" not in (tmp_path / "out/results/report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_real_search_is_shown_as_it_goes(experiment: ExperimentWriter, tmp_path: Path) -> None:
    """Every figure on the screen is one of a record, and who was stopped stays there with the reason."""
    training = {**TRAINING, "learning_rate": [0.0001, 0.01, 0.03]}
    path = write(experiment, adapter={"rank": 2}, training=training, search={**SEARCH, "seeds_at_the_end": 1})
    live, plain = Watched(), Listened()
    lorabench.run(path, tmp_path / "live", trackers=["none"], view=live)
    plain.output_dir = tmp_path / "plain"
    lorabench.run(path, tmp_path / "plain", trackers=["none"], view=plain)
    by_id = {record.run_id: record for record in load_records(tmp_path / "plain")}
    records = [by_id[run.run_id] for run in lorabench.plan(path).runs]
    figures = [f"{record.rungs[0].validation.bits_per_byte:.4f}" for record in records]
    reached = [line for line in plain.shown.getvalue().splitlines() if " so far" in line]
    found = [re.search(r"rung 1 of 2 .*: ([0-9.]+) bits/byte \(95 %: .*, place \d of (\d)", line) for line in reached]
    assert [match and match.groups() for match in found] == list(zip(figures[:2], "12", strict=True))
    assert reached[1].endswith("so far, 1 to come")  # with the last one the rung is decided, and its table is shown
    assert not plain.told[-1]  # what is trained to its end races no more
    kept = [races for races in plain.kept if races]
    assert kept, "what the page is made from"
    assert all(any(races == tuple(told) for told in plain.told) for races in kept)

    at_first = next(table for table in live.tables if "rung 1 of 2" in table[0])
    assert at_first[0].endswith("0 of 3 scored")
    assert [sum(what in line for line in at_first) for what in (" loss ", "waiting")] == [2, 2]
    at_second = next(table for table in live.tables if "rung 2 of 2" in table[0])
    for record, figure in zip(records, figures, strict=True):
        assert any(f" {figure} " in line and "stopped at rung 1 of 2" in line for line in at_second) == (
            len(record.rungs) == 1
        )
