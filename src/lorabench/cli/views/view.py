"""Progress while an experiment runs: a live view on a terminal, plain lines everywhere else."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lorabench.analysis.race import Race
from lorabench.cli.views.live import live_lines
from lorabench.cli.views.race import live_table, race_table, reached_line
from lorabench.cli.views.state import State, Work
from lorabench.cli.views.text import clean, make_console, percent, styled
from lorabench.core.formatting import bits, duration, number
from lorabench.records.schema import RunRecord, Status
from lorabench.runs.decision import Decision
from lorabench.runs.view import RunView

PLAIN_SECONDS = 10.0
"""Between two plain lines of one phase."""
REFRESHES_PER_SECOND = 4
ROWS_AROUND_A_RACE = 2
"""Its title and its headings."""


class Phase:
    """A stretch of work that a view shows."""

    def __init__(self, view: ProgressView) -> None:
        self._view = view

    def advance(self, amount: float = 1.0, **fields: object) -> None:
        """`amount` more is done; `fields` are shown beside it."""
        self._view.advance(amount, **fields)


class ProgressView(RunView):
    """What the pipeline tells its user. Every method may be called from any thread and costs microseconds.

    The views of workers share everything with the command's own but for what the worker does.
    """

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        self.console, self.now = console, now
        self.state = State()
        self.work = self._work_of("")
        self._lock = threading.RLock()

    def worker(self, name: str) -> Self:
        """See RunView."""
        view = copy.copy(self)
        with self._lock:
            view.work = self._work_of(name)
            self.state.clock.num_workers = len(self.state.works) - 1
        return view

    def _work_of(self, worker: str) -> Work:
        return self.state.works.setdefault(worker, Work(worker))

    def plan(
        self,
        total_runs: int,
        skipped: int,
        expected_seconds: Mapping[str, float] | None = None,
        failed_before: int = 0,
    ) -> None:
        """See RunView."""
        with self._lock:
            self.state.num_runs, self.state.num_skipped = total_runs - skipped, skipped
            self.state.clock.plan(self.state.num_runs, expected_seconds)
        done_before = skipped - failed_before
        skipping = f", {done_before} done before and skipped" if done_before else ""
        if failed_before:
            skipping += f", {failed_before} failed before and skipped (--retry failed tries them again)"
        runs = "1 run" if total_runs == 1 else f"{total_runs} runs"
        self.message(f"{runs}{skipping}, {total_runs - skipped} to do")

    def start_run(self, run_id: str, index: int, steps: int = 0) -> None:
        """See RunView."""
        with self._lock:
            work, clock = self.work, self.state.clock
            if work.run_id is not None:
                clock.pause_run(work.run_id)
            work.run_id, work.run_index, work.share_trained = run_id, index, 0.0
            self.state.num_runs = max(self.state.num_runs, index)
            clock.start_run(run_id, steps, time.monotonic())
        self.phase("starting")

    def phase(self, name: str, total: float | None = None, unit: str = "") -> Phase:
        """See RunView."""
        with self._lock:
            self.work.start_phase(name, total, unit)
            self._phase_changed()
        return Phase(self)

    def advance(self, amount: float, **fields: object) -> None:
        """`amount` more of the current phase is done."""
        with self._lock:
            self.work.done += amount
            self.work.fields = {name: str(value) for name, value in fields.items()} or self.work.fields
            self._moved()

    def step(self, step: int, total: int, loss: float, tokens_per_second: float) -> None:
        """See RunView."""
        with self._lock:
            work = self.work
            if work.phase != "training":
                self.phase("training", total, "steps")
            work.done, work.total, work.unit = step, total, "steps"
            work.share_trained = step / total
            work.fields = {"loss": number(loss), "tokens/s": f"{tokens_per_second:,.0f}"}
            if work.run_id is not None:
                self.state.clock.step(work.run_id, step, total, time.monotonic())
            self._moved()

    def progress(self, description: str, done: float, total: float | None) -> None:
        """See Progress: for downloads, builders and scorers."""
        with self._lock:
            if self.work.phase != description:
                self.phase(description, total)
            self.work.move(done, total, self.now())
            self._moved()

    def finish_run(self, record: RunRecord) -> None:
        """The run is over, however it ended and whichever worker did it."""
        with self._lock:
            self.state.clock.finish_run(record.run_id, time.monotonic())
            self.state.num_done += 1
            for work in self.state.works.values():
                if work.run_id == record.run_id:
                    work.end_run()
        self._print(finished_line(record))

    def message(self, text: str) -> None:
        """One sentence that stays on the screen."""
        self._print(styled(text))

    def decided(self, decision: Decision) -> None:
        """All configurations at a rung side by side."""
        self._print(race_table(decision))

    def races(self, races: Sequence[Race]) -> None:
        """See RunView."""
        with self._lock:
            self.state.races = races

    def remaining(self) -> str:
        """`about 4 min left`, or nothing where nothing is known yet or the end is a matter of moments.

        Of the experiment; where there is none, of what is being done.
        """
        if self.state.num_runs:
            seconds = self.state.clock.remaining_seconds(time.monotonic())
        else:
            seconds = self.work.seconds_left(self.now())
        return "" if seconds is None or seconds < 1.0 else f"about {duration(seconds)} left"

    def _print(self, line: Text | Table) -> None:
        """Never under the lock: a live console draws in a thread of its own, which asks for that lock."""
        with contextlib.suppress(OSError, ValueError):
            self.console.print(line, soft_wrap=isinstance(line, Text))

    def _phase_changed(self) -> None:
        """The phase is another one."""

    def _moved(self) -> None:
        """The phase went on."""


class PlainView(ProgressView):
    """One line per phase, one about every ten seconds of a phase, and one per finished run."""

    def __init__(
        self, console: Console, seconds: float = PLAIN_SECONDS, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(console, now)
        self._seconds = seconds
        self._said_at = now()
        self._said: tuple[str | None, str] | None = None

    def races(self, races: Sequence[Race]) -> None:
        """A line for each configuration that has reached its rung since the last time."""
        before = {(race.corpus, race.where): race for race in self.state.races}
        super().races(races)
        for race in races:
            earlier = before.get((race.corpus, race.where))
            known = race.racers if earlier is None else [racer for racer in earlier.racers if racer.is_scored]
            scored_before = {racer.run_ids for racer in known}
            for racer in race.racers:
                if racer.is_scored and racer.run_ids not in scored_before:
                    self._print(reached_line(race, racer))

    def _phase_changed(self) -> None:
        """A line for a phase that this run has not been in just before; short returns to training print nothing."""
        key = (self.work.run_id, self.work.phase)
        if key == self._said or (self.work.phase in {"training", "validation"} and self._is_within_training()):
            return
        self._print_progress()

    def _moved(self) -> None:
        if self.now() - self._said_at >= self._seconds:
            self._print_progress()

    def _is_within_training(self) -> bool:
        return self._said is not None and self._said[0] == self.work.run_id and self._said[1] == "training"

    def _print_progress(self) -> None:
        work = self.work
        self._said, self._said_at = (work.run_id, work.phase), self.now()
        parts = [f"run {work.run_index} of {self.state.num_runs}"] if work.run_id is not None else []
        if work.run_id is not None and work.phase == "starting":
            parts.append(clean(work.run_id))
        else:
            parts.append(clean(work.phase))
            parts += [how_far(work.done, work.total, work.unit)] if work.total else []
            parts += [f"{clean(name)} {clean(value)}" for name, value in work.fields.items()]
            parts += [self.remaining()] if work.run_id is not None or not self.state.num_runs else []
        worker = f"{clean(work.worker)}: " if work.worker else ""
        self._print(Text(worker + ", ".join(part for part in parts if part)))


class LiveView(ProgressView):
    """A few lines at the bottom of a terminal that keep themselves up to date; finished runs scroll away above."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(
            get_renderable=self._render, console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _render(self) -> Text | Group:
        with self._lock:
            lines = live_lines(self.state, self.remaining(), self.console.width)
            races, losses = self.state.races, self.state.losses
        if not races:
            return lines
        width, height = self.console.size
        num_rows = (height - len(lines.plain.splitlines()) - 1) // len(races) - ROWS_AROUND_A_RACE
        return Group(*(live_table(race, losses, width, max(1, num_rows)) for race in races), lines)


def how_far(done: float, total: float | None, unit: str) -> str:
    """`34/180 steps`, or a share where the unit has no name."""
    if not total or not done:
        return f"{done:,.0f} {unit}".rstrip() if done else ""
    return f"{done:,.0f}/{total:,.0f} {unit}" if unit else f"{min(1.0, done / total):.0%}"


def finished_line(record: RunRecord) -> Text:
    """How a run ended, in one line."""
    good = record.status in {Status.COMPLETED, Status.STOPPED_EARLY}
    line = Text.assemble(
        ("✓ " if good else "✗ ", "green" if good else "red"), styled(record.run_id, "bold" if good else "red")
    )
    if record.status is not Status.COMPLETED:
        line.append(f"  {record.status.value.replace('_', ' ')}", "yellow" if good else "red")
        if record.status_reason:
            line.append(f": {clean(record.status_reason, 300)}")
    if record.validation is not None:
        figure = record.validation.bits_per_byte
        line.append(f"  {bits(figure)} bits/byte")
        if record.base_validation is not None:
            line.append(f" ({percent(figure / record.base_validation.bits_per_byte - 1.0)} against the base)")
    if record.speed is not None:
        if record.speed.tokens_per_second is not None:
            line.append(f"  {record.speed.tokens_per_second:,.0f} tokens/s", "dim")
        line.append(f"  {duration(record.speed.total_seconds)}", "dim")
    return line


def make_view(target: Console | TextIO | None = None, *, plain: bool | None = None) -> ProgressView:
    """The view that suits `target` (default: standard error): live on a terminal, plain lines elsewhere."""
    import sys

    console = target if isinstance(target, Console) else make_console(sys.stderr if target is None else target)
    if plain is None:
        plain = not console.is_terminal or console.is_dumb_terminal
    return PlainView(console) if plain else LiveView(console)
