"""The `search` section: how the best configuration is found without training every one of them to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from lorabench.core.errors import ConfigError
from lorabench.core.plain_yaml import show_value
from lorabench.core.settings import Frozen, PositiveInt, refuse_key, tidy
from lorabench.experiment.axes import highest
from lorabench.experiment.sampling import Axes, range_keys

SearchStrategy = Literal["matrix", "halving", "racing", "tpe"]
NUM_FIRST = 10
"""Configurations of each model that `tpe` begins with, spread evenly."""
MAX_RUNGS = 10
RUNGS = (1 / 27, 1 / 9, 1 / 3)
"""Shares of a run."""
RUNGS_OF_RACING = RUNGS[1:]
"""Replays of benchmarks/grids/medical.parquet: from 1/27 the best of the end is kept in 1 %, from 1/9 in all."""
STABLE = "wsd"
WARMUP_OF_FIRST_RUNG = 0.25
"""Of the first rung's steps at most so many warm up, where the experiment does not say how many do."""


def _read_shares(value: Any) -> Any:
    """Shares of a run may be written as fractions: `1/9`."""
    if not isinstance(value, list | tuple):
        return value
    shares = []
    for item in value:
        try:
            shares.append(float(Fraction(item)) if isinstance(item, str) else item)
        except (ValueError, ZeroDivisionError):
            raise ConfigError(f"search.rungs: {show_value(item)} is no share of a run, such as 1/9") from None
    return tuple(shares)


_Shares = Annotated[tuple[float, ...], BeforeValidator(_read_shares)]
_UNUSED_REASONS = {
    ("racing", "keep"): "racing keeps every configuration that may be the best",
    ("racing", "eta"): "racing uses it for the distance of rungs alone, and rungs lists them",
}


class SearchBudget(Frozen):
    """How much a search may cost; one of the three."""

    runs: PositiveInt | None = None
    """Configurations that enter it."""
    bytes: PositiveInt | None = None
    """Of text that is trained on, over all runs, at worst."""
    hours: Annotated[float, Field(gt=0.0)] | None = None
    """As the plan expects them."""

    @model_validator(mode="after")
    def _check(self) -> SearchBudget:
        if sum(value is not None for value in (self.runs, self.bytes, self.hours)) != 1:
            raise ValueError("give one of runs, bytes and hours")
        return self


class SearchSettings(Frozen):
    """How a search goes."""

    strategy: SearchStrategy = "halving"
    rungs: Annotated[int, Field(ge=1, le=MAX_RUNGS)] | _Shares = RUNGS
    """At which shares of a run they are compared; or how often, each rung `eta` times as far as the one before."""
    eta: Annotated[int, Field(ge=2, le=100)] = 2
    """One of so many goes on from a rung; of racing the distance of the rungs alone."""
    keep: PositiveInt = 2
    """Configurations that are trained with further seeds, and so many at least to the end; racing keeps all that may
    be the best."""
    budget: SearchBudget | None = None
    """Null: every combination enters."""
    seeds_at_the_end: Annotated[int, Field(ge=1, le=100)] = 3
    """What is kept is trained with so many seeds."""

    @model_validator(mode="before")
    @classmethod
    def _space_rungs(cls, values: Any) -> Any:
        """Who gives `eta` alone has rungs that are as far apart; racing's own begin late, as it keeps what it can."""
        if not isinstance(values, Mapping) or "rungs" in values:
            return values
        if "eta" in values:
            return {**values, "rungs": len(RUNGS)}
        return {**values, "rungs": RUNGS_OF_RACING} if values.get("strategy") == "racing" else values

    @property
    def shares(self) -> tuple[float, ...]:
        """Of a run, at which rungs are; rising."""
        if self.strategy == "tpe":
            return ()
        if isinstance(self.rungs, int):
            return tuple(float(self.eta) ** -number for number in range(self.rungs, 0, -1))
        return self.rungs

    @property
    def stops_runs(self) -> bool:
        """Whether runs may be stopped before their end."""
        return self.strategy in ("halving", "racing")

    @property
    def leaves_runs_out(self) -> bool:
        """Whether some of the runs that are planned may not be done, such as those with further seeds."""
        return self.strategy != "matrix"

    def num_configurations(self, num_models: int) -> int | None:
        """Of each model, over the whole search; None where its budget is not in runs: all combinations."""
        if self.budget is None or self.budget.runs is None:
            return None
        return -(-self.budget.runs // num_models)

    def num_entering(self, num_models: int) -> int | None:
        """Of each model, before any run has a result; None: all combinations."""
        count = self.num_configurations(num_models)
        return count if count is None or self.strategy != "tpe" else min(count, NUM_FIRST)

    @model_validator(mode="after")
    def _check(self) -> SearchSettings:
        shares = self.shares
        if self.strategy != "tpe" and (not shares or len(shares) > MAX_RUNGS):
            raise ValueError(f"rungs: 1 to {MAX_RUNGS} are accepted")
        if any(not 0.0 < share < 1.0 for share in shares) or list(shares) != sorted(set(shares)):
            raise ValueError("rungs: rising shares of a run are expected, each above 0 and below 1, such as [1/9, 1/3]")
        for name in sorted(self._unused & self.model_fields_set):
            reason = _UNUSED_REASONS.get((self.strategy, name), f"{self.strategy} trains every run to its end")
            raise ValueError(
                f"{name}: {reason}; leave it out" + ", or choose halving" * (self.strategy in ("matrix", "tpe"))
            )
        return self

    @property
    def _unused(self) -> frozenset[str]:
        """Settings that mean nothing with this strategy."""
        if self.strategy == "matrix":
            return frozenset({"rungs", "eta", "keep", "seeds_at_the_end"})
        if self.strategy == "tpe":
            return frozenset({"rungs", "eta"})
        if self.strategy == "racing":
            return frozenset({"keep"} if isinstance(self.rungs, int) else {"keep", "eta"})
        return frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that what was written can be read, though a user may not give what means nothing."""
        return {name: value for name, value in write(self).items() if name not in self._unused}


def read_search(raw: Any) -> SearchSettings | None:
    """The `search` section. Raises ConfigError with one sentence for the first problem."""
    if raw is None or isinstance(raw, SearchSettings):
        return raw
    values = {"strategy": raw} if isinstance(raw, str) else raw
    if not isinstance(values, Mapping):
        raise ConfigError(f"search: should be a mapping with strategy, rungs, eta, keep, …, got {show_value(raw)}")
    for key in values:
        if key not in SearchSettings.model_fields:
            refuse_key("search", key, SearchSettings)
        if isinstance(values[key], bool):
            raise ConfigError(
                f"search.{key}: {show_value(values[key])} is not accepted; true and false mean nothing here"
            )
    budget = values.get("budget")
    if budget is not None and not isinstance(budget, Mapping | SearchBudget):
        raise ConfigError(f"search.budget: {show_value(budget)} is not accepted; give a unit, such as {{runs: 27}}")
    for key in budget if isinstance(budget, Mapping) else ():
        if key not in SearchBudget.model_fields:
            refuse_key("search.budget", key, SearchBudget)
    try:
        return SearchSettings.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors()[0]
        path = [str(part) for part in problem["loc"] if not str(part).startswith(("constrained", "tuple", "function"))]
        message = tidy(problem["msg"])
        if not path:  # of several settings, which the sentence names
            raise ConfigError(f"search.{message}") from None
        where = ".".join(["search", *path])
        raise ConfigError(f"{where}: {show_value(problem['input'])} is not accepted; {message}") from None


def training_of_search(search: SearchSettings, axes: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The axes of the `training` section: a search that stops runs has a constant rate with a cool-down by default.

    Its warm-up is over well before the first rung. What the experiment says itself stays.
    """
    if not search.stops_runs:
        return axes
    axes = {"schedule": [STABLE]} | axes
    if "warmup_ratio" not in axes:
        axes["warmup_ratio"] = [min(0.05, round(search.shares[0] * WARMUP_OF_FIRST_RUNG, 6))]
    return axes


def evaluation_of_search(search: SearchSettings, evaluation: Any) -> Any:
    """The `evaluation` section: rungs score validation along a run, so by default only the end does besides."""
    if not search.stops_runs or not isinstance(evaluation, Mapping | None):
        return evaluation
    return {"times": 1, **(evaluation or {})}


def seeds_with_those_at_the_end(search: SearchSettings | None, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds of the experiment, and those that only what is trained to the end is trained with."""
    if search is None or not search.leaves_runs_out:
        return tuple(seeds)
    more = (seed for seed in range(max(seeds) + 1, max(seeds) + 1 + search.seeds_at_the_end))
    return (*seeds, *(seed for seed, _ in zip(more, range(search.seeds_at_the_end - len(seeds)), strict=False)))


def check_search(
    search: SearchSettings | None, entries: Sequence[tuple[Axes, Axes]], num_devices: int, seeds: Sequence[int]
) -> None:
    """Raise ConfigError where the search and the rest of the experiment contradict one another.

    `entries` are the axes of adapters and of their training.
    """
    ranges = [f"adapter.{key}" for adapter, _ in entries for key in range_keys(adapter)]
    ranges += [f"training.{key}" for _, training in entries for key in range_keys(training)]
    if search is None or search.strategy == "matrix":
        if ranges:
            raise ConfigError(f"{ranges[0]}: it is a range to draw from; give a list, or search with a budget")
        if search is not None and search.budget is not None:
            raise ConfigError("search.budget: matrix trains every run to its end; leave it out, or choose halving")
        return
    if search.budget is None and ranges:
        raise ConfigError(f"search.budget: {ranges[0]} is a range, so say how many values to try, such as {{runs: 27}}")
    if search.strategy == "tpe":
        if search.budget is None:
            raise ConfigError("search.budget: tpe goes on for as long as it is told; give one, such as {runs: 27}")
        return
    if search.strategy == "racing" and len(seeds) < 2:
        raise ConfigError(
            "seeds: racing compares over documents and seeds, and one seed decides nothing; give at least 2"
        )
    if num_devices > 1:
        raise ConfigError("training.devices: a search trains each run on one device; leave it out, or give --devices")
    for _, training in entries:
        _check_warmup(search, training)


def _check_warmup(search: SearchSettings, training: Axes) -> None:
    """A rung has the warm-up of the whole run, and falls after it."""
    first = search.shares[0]
    for schedule in training["schedule"]:
        for warmup in map(highest, training["warmup_ratio"]) if schedule in ("wsd", "constant") else ():
            decay = max(map(highest, training.get("decay_ratio", [0.2]))) if schedule == "wsd" else 0.0
            if warmup > (1.0 - decay) * first:
                raise ConfigError(
                    f"training.warmup_ratio: {warmup:g} reaches beyond the first rung at {first:.3g} of a run; at most "
                    f"{(1.0 - decay) * first:.3g} is accepted"
                )
