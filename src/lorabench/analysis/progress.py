"""How far experiments have come, and what is not to be said before all that they asked for is there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from lorabench.analysis.findings import Findings, Recommendation
from lorabench.analysis.race import Race, read_races
from lorabench.core.errors import UnknownNameError
from lorabench.core.formatting import count, listed, plural
from lorabench.records.asked import Asked
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore
from lorabench.records.under_way import UnderWay, read_under_way


@dataclass(frozen=True)
class Progress:
    """An experiment that is not at its end."""

    asked: Asked
    is_running: bool
    """Whether whoever asks, or another process, is doing it."""
    num_ended: int
    """Runs with a record that the same command would not go on with."""
    under_way: tuple[UnderWay, ...]
    """Runs that a process is doing at this moment."""
    interrupted: tuple[str, ...]
    """Ids of runs that were begun: the same command, or the search that has paused them, goes on with them."""
    queued: tuple[str, ...]
    """Ids of runs that were not begun."""
    races: tuple[Race, ...] = ()
    """How the rungs of a search stand that are not decided yet."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Ids of the runs that have not ended."""
        return (*(run.run_id for run in self.under_way), *self.interrupted, *self.queued)

    @property
    def begun(self) -> str:
        """What became of the runs that were begun: a search that goes on has paused them itself."""
        return "paused" if self.asked.is_search and self.is_running else "interrupted"

    @property
    def sentence(self) -> str:
        """How many of how many."""
        num = len(self.asked.runs)
        of = f"at most {plural(num, 'run')}" if self.asked.is_search else plural(num, "run")
        begun = f", {count(len(self.interrupted))} of them {self.begun}" if self.interrupted else ""
        now = f"{count(len(self.under_way))} under way, " if self.under_way else ""
        to_come = f"{now}{count(len(self.interrupted) + len(self.queued))} to come{begun}"
        goes_on = "" if self.is_running else "; the same command goes on with it"
        verb = "has" if num == 1 else "have"
        return f"{count(self.num_ended)} of {of} of {self.asked.name} {verb} ended, {to_come}{goes_on}"


def progress_of(
    asked: Sequence[Asked], records: Sequence[RunRecord], store: RecordStore, running: str = ""
) -> list[Progress]:
    """Of experiments that miss runs. `running` is the name of the one that whoever asks is doing.

    What a search that is over left out is not missing.
    """
    ended = {record.run_id for record in records if not record.goes_on}
    begun = {record.run_id for record in records if record.goes_on}
    found = []
    for one in asked:
        missing = [run_id for run_id in one.runs if run_id not in ended]
        under_way = tuple(read_under_way(store, missing))
        is_running = one.name == running or bool(under_way)
        left = [run_id for run_id in missing if run_id not in {run.run_id for run in under_way}]
        interrupted = tuple(run_id for run_id in left if run_id in begun or _has_checkpoints(store, run_id))
        if missing and (is_running or interrupted or not one.is_search):
            queued = tuple(run_id for run_id in left if run_id not in set(interrupted))
            num_ended = len(one.runs) - len(missing)
            races = read_races(store.output_dir, one.name) if one.is_search else ()
            found.append(Progress(one, is_running, num_ended, under_way, interrupted, queued, races))
    return found


def _has_checkpoints(store: RecordStore, run_id: str) -> bool:
    """Whether a run without a record was begun: it has paused, or was killed."""
    with suppress(UnknownNameError, OSError):
        return store.checkpoints_dir(run_id).is_dir()
    return False


def provisional(findings: Findings, progress: Sequence[Progress]) -> Findings:
    """Without verdicts and advice that planned runs may change: recommendations hold so far, and nothing is advised."""
    if not progress:
        return findings
    missing = {one.asked.runs[run_id] for one in progress for run_id in one.missing}
    labels = {corpus.label for corpus in findings.corpora if corpus.name in missing}
    names = listed([one.asked.name for one in progress])
    num = len({run_id for one in progress for run_id in one.missing})
    most = "at most " if any(one.asked.is_search for one in progress) else ""
    to_come = f"{most}{plural(num, 'run')} of {names} {'has' if num == 1 else 'have'} not ended yet"
    open_until = f"{to_come[:1].upper()}{to_come[1:]}: what is left open is said when all are done"
    is_running = any(one.is_running for one in progress)
    step = f"Wait for what is planned: {to_come}" if is_running else f"Give the same command again: {to_come}"
    return replace(
        findings,
        overall=findings.overall and _so_far(findings.overall),
        recommendations=tuple(_so_far(one) if one.corpus in labels else one for one in findings.recommendations),
        unanswered=(open_until,),
        next_steps=(step,),
    )


def _so_far(choice: Recommendation) -> Recommendation:
    return replace(choice, is_decided=False, standing=f"so far: {choice.standing}")
