"""A search over rungs: all configurations run to the first, those that a rule lets go on to the next, some to the end.

What is asked for follows from what runs have scored at rungs alone. So a search that was killed, or that several
processes do, comes to the same decisions, and one that is given more configurations goes on from what there is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol, runtime_checkable

from lorabench.analysis.candidates import describe_specs
from lorabench.analysis.race import Race, Racer
from lorabench.analysis.statistics import Interval
from lorabench.core.errors import ConfigError
from lorabench.core.storage import read_regular
from lorabench.experiment.identity import configuration_of
from lorabench.experiment.ladder import num_kept
from lorabench.experiment.plan import PlannedRun
from lorabench.experiment.schema import Experiment, RunSpec
from lorabench.experiment.search import SearchSettings
from lorabench.records.documents import DocumentResults, parse_documents
from lorabench.records.schema import Rung, Status
from lorabench.records.store import RecordStore
from lorabench.runs.decision import Decision, RaceRow, interval_of
from lorabench.runs.strategy import STRATEGIES, Request, Standing, Strategy, StrategyKind, final_figure
from lorabench.runs.wishes import Wish, read_wish

STOPPED_BY_USER = "stopped by lorabench stop"


@dataclass(frozen=True)
class Situation:
    """What a search knows beside its runs."""

    search: SearchSettings
    seeds: tuple[int, ...]
    """That configurations are compared with; what is trained to the end has more."""
    store: RecordStore

    def documents(self, run_ids: Sequence[str], rungs: Sequence[Rung]) -> tuple[DocumentResults, ...]:
        """What the same documents scored at a rung with each seed; empty where that is not what all runs wrote."""
        found = []
        for run_id, rung in zip(run_ids, rungs, strict=True):
            try:
                found.append(read_rung_documents(self.store, run_id, rung))
            except (OSError, ValueError):
                return ()
        return tuple(found) if len({item.fingerprint for item in found}) == 1 else ()


def read_rung_documents(store: RecordStore, run_id: str, rung: Rung) -> DocumentResults:
    """What the documents of a run scored at a rung. Raises OSError, or ValueError where the run did not write that."""
    content = read_regular(store.run_dir(run_id) / rung.documents)
    if hashlib.sha256(content).hexdigest() != rung.documents_sha256:
        raise ValueError("its content does not match the hash in the record")
    return parse_documents(content, rung.validation)


@dataclass(frozen=True)
class Entrant:
    """A configuration at a rung."""

    spec: RunSpec
    run_ids: tuple[str, ...]
    """One for each seed."""
    bits_per_byte: float
    """Mean over seeds."""
    documents: tuple[DocumentResults, ...]
    """With each seed, of the same documents; empty where some cannot be read."""


@dataclass(frozen=True)
class AtRung:
    """Those that reached a rung, in the order of the plan."""

    search: SearchSettings
    number: int
    """From 0."""
    entrants: tuple[Entrant, ...]

    @property
    def where(self) -> str:
        """The rung in words."""
        return where(self.search, self.number)


def where(search: SearchSettings, number: int) -> str:
    """A rung in words, counted from 0."""
    return f"rung {number + 1} of {len(search.shares)} ({search.shares[number]:.3g} of its steps)"


Rule = Callable[[AtRung], Mapping[int, str]]
"""Who leaves: the places among the entrants, each with the sentence for its records."""


@dataclass(frozen=True)
class SearchKind:
    """A strategy that the `search` section of an experiment chooses and sets."""

    rule: Rule

    def __call__(self, runs: Sequence[PlannedRun]) -> Strategy:
        """Raises ConfigError: it has settings."""
        raise ConfigError("strategy: a search takes its settings from the experiment; give it a section search")

    def of(self, experiment: Experiment, store: RecordStore) -> StrategyKind:
        """The kind with its settings."""
        assert experiment.search is not None
        situation = Situation(experiment.search, experiment.seeds, store)
        return lambda runs: Search(runs, situation, self.rule)


@runtime_checkable
class KindWithSettings(Protocol):
    """A kind that takes its settings from the section `search`."""

    def of(self, experiment: Experiment, store: RecordStore) -> StrategyKind:
        """The kind with its settings. Raises MissingExtraError."""


def strategy_of(experiment: Experiment, name: str, store: RecordStore) -> StrategyKind:
    """What decides which runs are done: the experiment's search, or the strategy of that name. Raises ConfigError."""
    search = experiment.search
    if search is not None and name not in ("matrix", search.strategy):
        raise ConfigError(f"strategy: {name} is not accepted; the experiment says search.strategy: {search.strategy}")
    kind = STRATEGIES.get(name if search is None else search.strategy)
    if search is not None and isinstance(kind, KindWithSettings):
        return kind.of(experiment, store)
    return kind


@dataclass
class _Bracket:
    """The configurations of one corpus: only there can they be compared."""

    configurations: dict[str, dict[int, PlannedRun]] = field(default_factory=dict)
    """By what they are but for the seed, then by seed."""
    leaving: dict[tuple[int, tuple[str, ...]], Mapping[str, str]] = field(default_factory=dict)
    """What was decided, by rung and by those that were there."""


class Search:
    """Asks for rung after rung; see the module."""

    def __init__(self, runs: Sequence[PlannedRun], situation: Situation, rule: Rule) -> None:
        self._situation = situation
        self._rule = rule
        self._standings: dict[str, Standing] = {}
        self._asked: set[str] = set()
        self._brackets: dict[str, _Bracket] = {}
        self._intervals: dict[tuple[str, ...], Interval | None] = {}
        self.decided: list[Decision] = []
        for run in runs:
            bracket = self._brackets.setdefault(run.spec.dataset, _Bracket())
            bracket.configurations.setdefault(configuration_of(run.spec), {})[run.spec.seed] = run

    def tell(self, standing: Standing) -> None:
        """What a run has scored at rungs counts."""
        self._asked.discard(standing.run_id)
        self._standings[standing.run_id] = standing

    def ask(self) -> Request | None:
        """The next run that is to go on, or to be stopped."""
        for bracket in self._brackets.values():
            for request in self._wanted(bracket):
                if request.run_id not in self._asked:
                    self._asked.add(request.run_id)
                    return request
        return None

    def _wanted(self, bracket: _Bracket) -> Iterator[Request]:
        """All that may be done now, what stops runs first."""
        members = tuple(bracket.configurations)
        for number, members, missing in self._rungs(bracket):
            share = self._situation.search.shares[number]
            for key in bracket.configurations:
                if self._is_stopped_by_user(bracket, key, share):
                    yield from self._stops(bracket, key, STOPPED_BY_USER)
            if missing:
                yield from (Request(run_id, rung_share=share) for run_id in missing)
                return
            leaving = self._leaving(bracket, number, members)
            for key, reason in leaving.items():
                yield from self._stops(bracket, key, reason)
            members = tuple(key for key in members if key not in leaving)
        to_come = [run for key in members for run in self._compared(bracket, key) if not self._has_ended(run.run_id)]
        if not to_come:
            runs = (run for key in self._kept(bracket, members) for run in bracket.configurations[key].values())
            to_come = [run for run in runs if not self._has_ended(run.run_id)]
        yield from (Request(run.run_id) for run in to_come)

    def _kept(self, bracket: _Bracket, members: Sequence[str]) -> Sequence[str]:
        """Of those that were trained to the end the ones that further seeds are for."""
        figures = {}
        for key in members:
            figure = final_figure([self._standings[run.run_id] for run in self._compared(bracket, key)])
            if figure is not None:
                figures[key] = figure
        return sorted(figures, key=figures.__getitem__)[: num_kept(self._situation.search, len(figures))]

    def _rungs(self, bracket: _Bracket) -> Iterator[tuple[int, tuple[str, ...], list[str]]]:
        """Up to the first that cannot be decided: its number, who is there, and the runs that are still to come."""
        members = tuple(bracket.configurations)
        for number, share in enumerate(self._situation.search.shares):
            members = tuple(key for key in members if not self._is_stopped_by_user(bracket, key, share))
            runs = [run.run_id for key in members for run in self._compared(bracket, key)]
            missing = [run_id for run_id in runs if not self._is_at(run_id, share)]
            yield number, members, missing
            if missing:
                return
            leaving = self._leaving(bracket, number, members)
            members = tuple(key for key in members if key not in leaving)

    def races(self) -> Sequence[Race]:
        """See Deciding."""
        races = []
        for bracket in self._brackets.values():
            *_, (number, members, missing) = self._rungs(bracket)
            if missing:
                races.append(self._race(bracket, number, members))
        return races

    def _race(self, bracket: _Bracket, number: int, members: Collection[str]) -> Race:
        specs = [next(iter(runs.values())).spec for runs in bracket.configurations.values()]
        labels = describe_specs(specs)
        reasons = {key: reason for leaving in bracket.leaving.values() for key, reason in leaving.items()}
        racers = []
        for key, label in zip(bracket.configurations, labels, strict=True):
            failed = next((run for run in self._compared(bracket, key) if self._has_failed(run.run_id)), None)
            stopped = None if key in members else reasons.get(key, STOPPED_BY_USER)
            if stopped is None and failed is not None:
                stopped = f"seed {failed.spec.seed} did not complete"
            racers.append(self._racer(bracket, key, label, number, stopped))
        racers.sort(key=lambda racer: (racer.stopped is not None, racer.bits_per_byte or math.inf))
        return Race(specs[0].dataset, where(self._situation.search, number), tuple(racers))

    def _racer(self, bracket: _Bracket, key: str, label: str, number: int, stopped: str | None) -> Racer:
        """As it stands at a rung; what was stopped as at the last rung that it has reached."""
        runs = self._compared(bracket, key)
        run_ids = tuple(run.run_id for run in runs)
        shares = self._situation.search.shares[: number + 1]
        for share in [shares[-1]] if stopped is None else reversed(shares):
            rungs = tuple(rung for run in runs if (rung := self._rung(run.run_id, share)) is not None)
            if len(rungs) == len(runs):
                return Racer(label, run_ids, len(rungs), _figure(rungs), self._interval(run_ids, rungs), stopped)
        num_scored = 0 if stopped is not None else len(rungs)
        return Racer(label, run_ids, num_scored, None, None, stopped)

    def _interval(self, run_ids: Sequence[str], rungs: Sequence[Rung]) -> Interval | None:
        """Over documents and seeds, which are read once."""
        key = tuple(rung.documents_sha256 for rung in rungs)
        if key not in self._intervals:
            self._intervals[key] = interval_of(self._situation.documents(run_ids, rungs))
        return self._intervals[key]

    def _compared(self, bracket: _Bracket, key: str) -> list[PlannedRun]:
        """The runs of a configuration by which it is compared."""
        runs = bracket.configurations[key]
        return [runs[seed] for seed in self._situation.seeds]

    def _is_at(self, run_id: str, share: float) -> bool:
        """Whether nothing more is to be done of a run before the rung is decided."""
        return self._rung(run_id, share) is not None or self._has_ended(run_id)

    def _rung(self, run_id: str, share: float) -> Rung | None:
        standing = self._standings.get(run_id)
        rungs = () if standing is None else standing.rungs
        return next((rung for rung in rungs if rung.share == share), None)

    def _has_ended(self, run_id: str) -> bool:
        standing = self._standings.get(run_id)
        return standing is not None and standing.status not in (None, Status.STOPPED_EARLY)

    def _is_stopped_by_user(self, bracket: _Bracket, key: str, share: float) -> bool:
        """Whether it goes no further than it has come: not to this rung."""
        runs = self._compared(bracket, key)
        standings = [self._standings.get(run.run_id) for run in runs]
        waits = all(standing is not None and standing.rungs for standing in standings)
        return (
            waits and not all(self._is_at(run.run_id, share) for run in runs) and self._wish(bracket, key) is Wish.STOP
        )

    def _wish(self, bracket: _Bracket, key: str) -> Wish | None:
        """Of any of its runs."""
        wishes = (read_wish(self._situation.store, run.run_id) for run in bracket.configurations[key].values())
        return next((wish for wish in wishes if wish is not None), None)

    def _stops(self, bracket: _Bracket, key: str, reason: str) -> Iterator[Request]:
        """For what of a configuration still waits."""
        for run in bracket.configurations[key].values():
            standing = self._standings.get(run.run_id)
            if standing is not None and standing.status is None and standing.rungs:
                yield Request(run.run_id, rung_share=standing.rungs[-1].share, stop_reason=reason)

    def _leaving(self, bracket: _Bracket, number: int, members: tuple[str, ...]) -> Mapping[str, str]:
        """Who leaves at a rung that all have reached, decided once."""
        if (number, members) not in bracket.leaving:
            bracket.leaving[number, members] = self._decide(bracket, number, members)
        return bracket.leaving[number, members]

    def _decide(self, bracket: _Bracket, number: int, members: tuple[str, ...]) -> dict[str, str]:
        share = self._situation.search.shares[number]
        leaving, entrants = {}, {}
        for key in members:
            runs = self._compared(bracket, key)
            rungs = [rung for run in runs if (rung := self._rung(run.run_id, share)) is not None]
            failed = next((run for run in runs if self._has_failed(run.run_id)), None)
            if failed is not None:
                leaving[key] = f"stopped because seed {failed.spec.seed} of it did not complete"
            elif self._wish(bracket, key) is Wish.STOP:
                leaving[key] = STOPPED_BY_USER
            elif len(rungs) == len(runs):  # what was finished without rungs goes on, uncompared
                run_ids = tuple(run.run_id for run in runs)
                documents = self._situation.documents(run_ids, rungs)
                entrants[key] = Entrant(runs[0].spec, run_ids, _figure(rungs), documents)
        keys = list(entrants)
        at_rung = AtRung(self._situation.search, number, tuple(entrants.values()))
        beaten = self._rule(at_rung) if entrants else {}
        kept = {key for key in keys if self._wish(bracket, key) is Wish.KEEP}
        beaten = {place: reason for place, reason in beaten.items() if keys[place] not in kept}
        uncompared = [self._compared(bracket, key)[0].spec for key in leaving]
        if entrants:
            self.decided.append(_decision(at_rung, beaten.keys(), uncompared))
        return leaving | {keys[place]: reason for place, reason in beaten.items()}

    def _has_failed(self, run_id: str) -> bool:
        standing = self._standings.get(run_id)
        return self._has_ended(run_id) and standing is not None and standing.status is not Status.COMPLETED


def _figure(rungs: Sequence[Rung]) -> float:
    """Bits per byte, mean over seeds."""
    return fmean(rung.validation.bits_per_byte for rung in rungs)


def _decision(at_rung: AtRung, beaten: Set[int], uncompared: Sequence[RunSpec]) -> Decision:
    """What is shown of it."""
    entrants = at_rung.entrants
    specs = [*(entrant.spec for entrant in entrants), *uncompared]
    labels = describe_specs(specs)
    num_seeds = len(entrants[0].run_ids)
    rows = []
    for place in sorted(range(len(entrants)), key=lambda place: entrants[place].bits_per_byte):
        figure, interval = entrants[place].bits_per_byte, interval_of(entrants[place].documents)
        rows.append(RaceRow(labels[place], num_seeds, figure, interval, place not in beaten))
    rows += [RaceRow(label, num_seeds, None, None, False) for label in labels[len(entrants) :]]
    return Decision(specs[0].dataset, at_rung.where, tuple(rows))
