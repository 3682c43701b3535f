"""Strategy: configurations are proposed from what others scored, each is trained to its end, the best with more seeds.

Proposals are those of Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), by ask and tell. The first
`NUM_FIRST` are spread evenly; then come `ROUND` at a time, from all that scored before. A round's study is built anew
from these figures, with a seed that is their number: so proposals follow from the records alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lorabench.core.errors import ConfigError, require_package
from lorabench.experiment.axes import Range
from lorabench.experiment.plan import PlannedRun
from lorabench.experiment.sampling import Axes, Point, drawn_or_all
from lorabench.experiment.schema import Experiment, configured
from lorabench.records.store import RecordStore
from lorabench.runs.growing import Proposal
from lorabench.runs.strategy import Request, Standing, Strategy, StrategyKind, final_figure

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import Trial

ROUND = 4
"""Proposals at a time, so that several processes have something to do."""
MAX_ASKED = 30
"""Times that the estimator is asked for one proposal, until it is one that was not tried."""
Space = Sequence[tuple[Axes, Axes]]
"""Of each entry the axes of adapter and training."""


@dataclass
class _Study:
    """All that was tried of one model on one corpus."""

    model: str
    dataset: str
    points: list[tuple[Point, Point]] = field(default_factory=list)
    """Proposed."""
    configurations: list[list[PlannedRun]] = field(default_factory=list)
    """The runs of each point, one for each seed."""


class Tpe:
    """See the module."""

    def __init__(self, runs: Sequence[PlannedRun], experiment: Experiment) -> None:
        assert experiment.search is not None
        self._search = experiment.search
        self._space = experiment.axes
        self._seeds = experiment.seeds
        self._all_seeds = experiment.all_seeds
        self._count = self._search.num_configurations(len(experiment.models)) or 0
        self._first = drawn_or_all(self._space, self._search.num_entering(len(experiment.models)))
        places = dict.fromkeys((run.spec.model, run.spec.dataset) for run in runs)
        self._studies = [_Study(*place) for place in places]
        self._standings: dict[str, Standing] = {}
        self._asked: set[str] = set()

    @property
    def num_to_come(self) -> int:
        """See Growing."""
        return sum(self._count - len(study.points) for study in self._studies) * len(self._seeds)

    def tell(self, standing: Standing) -> None:
        """What a run scored at its end counts."""
        self._standings[standing.run_id] = standing

    def proposals(self) -> list[Proposal]:
        """A round of each study of which all that was proposed has ended."""
        found = []
        for study in self._studies:
            if len(study.points) < self._count and self._has_ended(study):
                study.points += self._next(study)[: self._count - len(study.points)]
                new = study.points[len(study.configurations) :]
                found += [Proposal(study.model, study.dataset, *configured(*point)) for point in new]
        return found

    def add(self, proposal: Proposal, runs: Sequence[PlannedRun]) -> None:
        """Proposals are added in their order."""
        place = proposal.model, proposal.dataset
        study = next(study for study in self._studies if (study.model, study.dataset) == place)
        study.configurations.append(list(runs))

    def ask(self) -> Request | None:
        """The runs of what was proposed; once all have ended, further seeds of the best on each corpus."""
        for dataset in dict.fromkeys(study.dataset for study in self._studies):
            studies = [study for study in self._studies if study.dataset == dataset]
            wanted = [run for study in studies for runs in study.configurations for run in self._compared(runs)]
            if all(len(study.configurations) >= self._count and self._has_ended(study) for study in studies):
                wanted = [run for runs in self._best(studies) for run in runs]
            for run in wanted:
                if run.run_id not in self._asked and run.run_id not in self._standings:
                    self._asked.add(run.run_id)
                    return Request(run.run_id)
        return None

    def _next(self, study: _Study) -> list[tuple[Point, Point]]:
        if not study.points:
            return self._first
        figures = [self._figure(runs) for runs in study.configurations]
        return propose(self._space, list(zip(study.points, figures, strict=True)), ROUND)

    def _compared(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        return [run for run in runs if run.spec.seed in self._seeds]

    def _has_ended(self, study: _Study) -> bool:
        every = [run for runs in study.configurations for run in self._compared(runs)]
        return all(run.run_id in self._standings for run in every)

    def _figure(self, runs: Sequence[PlannedRun]) -> float | None:
        """At its end, over the seeds that all have."""
        return final_figure([self._standings[run.run_id] for run in self._compared(runs)])

    def _best(self, studies: Sequence[_Study]) -> list[list[PlannedRun]]:
        every = [runs for study in studies for runs in study.configurations]
        completed = [(figure, runs) for runs in every if (figure := self._figure(runs)) is not None]
        return [runs for _, runs in sorted(completed, key=lambda found: found[0])[: self._search.keep]]


def propose(
    space: Space, tried: Sequence[tuple[tuple[Point, Point], float | None]], count: int
) -> list[tuple[Point, Point]]:
    """Points of the space, from those tried and their figures (lower is better; None: worse than all others)."""
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(n_startup_trials=1, seed=len(tried), constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    for point, figure in tried:
        params, distributions = _as_trial(space, point)
        state = TrialState.PRUNED if figure is None else TrialState.COMPLETE
        study.add_trial(create_trial(params=params, distributions=distributions, value=figure, state=state))
    points = [point for point, _ in tried]
    for _ in range(count):
        points.append(_new(space, study, points))
    return points[len(tried) :]


def _new(space: Space, study: Study, known: Sequence[tuple[Point, Point]]) -> tuple[Point, Point]:
    """What is asked for first that is not known; in a space that is all but tried what is known may come again."""
    for _ in range(MAX_ASKED):
        point = _suggested(space, study.ask())
        if point not in known:
            break
    return point


def _suggested(space: Space, trial: Trial) -> tuple[Point, Point]:
    place = trial.suggest_categorical("entry", range(len(space)))
    found: tuple[Point, Point] = {}, {}
    for part, (axes, point) in enumerate(zip(space[place], found, strict=True)):
        for key, axis in axes.items():
            name = f"{place}.{part}.{key}"
            if len(axis) > 1:
                point[key] = axis[trial.suggest_categorical(name, range(len(axis)))]
            else:
                point[key] = _drawn(trial, name, axis[0]) if isinstance(axis[0], Range) else axis[0]
    return found


def _drawn(trial: Trial, name: str, values: Range) -> float:
    low, high = values.ends
    if values.is_whole:
        return int(trial.suggest_int(name, int(low), int(high), log=values.is_log))
    return values.rounded(trial.suggest_float(name, low, high, log=values.is_log))


def _as_trial(space: Space, point: tuple[Point, Point]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Parameters and their distributions, as `_suggested` names them."""
    from optuna.distributions import CategoricalDistribution

    place = next(place for place, entry in enumerate(space) if _is_of(entry, point))
    params: dict[str, Any] = {"entry": place}
    distributions: dict[str, BaseDistribution] = {"entry": CategoricalDistribution(range(len(space)))}
    for part, (axes, values) in enumerate(zip(space[place], point, strict=True)):
        for key, axis in axes.items():
            if len(axis) > 1 or isinstance(axis[0], Range):
                name = f"{place}.{part}.{key}"
                params[name] = axis.index(values[key]) if len(axis) > 1 else values[key]
                distributions[name] = _distribution(axis)
    return params, distributions


def _is_of(entry: tuple[Axes, Axes], point: tuple[Point, Point]) -> bool:
    """Whether the entry's axes have the point's values."""
    return all(
        axes.keys() == values.keys()
        and all(isinstance(axis[0], Range) or values[key] in axis for key, axis in axes.items())
        for axes, values in zip(entry, point, strict=True)
    )


def _distribution(axis: Sequence[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if len(axis) > 1:
        return CategoricalDistribution(range(len(axis)))
    low, high = axis[0].ends
    if axis[0].is_whole:
        return IntDistribution(int(low), int(high), log=axis[0].is_log)
    return FloatDistribution(low, high, log=axis[0].is_log)


class TpeKind:
    """The strategy of an experiment whose section `search` says so."""

    def __call__(self, runs: Sequence[PlannedRun]) -> Strategy:
        """Raises ConfigError: it has settings."""
        raise ConfigError("strategy: tpe takes its settings from the experiment; give it a section search")

    def of(self, experiment: Experiment, store: RecordStore) -> StrategyKind:
        """The kind with its settings. Raises MissingExtraError."""
        require_package("optuna", "search.strategy: tpe", "search")
        return lambda runs: Tpe(runs, experiment)


STRATEGY = TpeKind()
