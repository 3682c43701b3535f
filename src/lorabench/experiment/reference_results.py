"""Results from elsewhere, published or one's own earlier ones, that the report shows beside what is measured here.

A YAML file: a title, where the results are from, what they leave open, and one entry for each result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from lorabench.core.errors import ConfigError, near_matches
from lorabench.core.home import user_path
from lorabench.core.plain_yaml import read_yaml, show_value
from lorabench.core.settings import Frozen, Reference, check_text, refuse_key, tidy
from lorabench.experiment.shipped import shipped_references
from lorabench.methods.registry import METHODS
from lorabench.methods.settings import DEFAULT_METHOD

Text = Annotated[str, Field(max_length=1000), AfterValidator(check_text)]
Figure = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
FIGURES = ("val_perplexity", "val_bits_per_byte", "tokens_per_second")


class ReferenceResult(Frozen):
    """One result from elsewhere: what it is of, and its figures under the names of the results table."""

    model: Reference
    dataset: Reference
    method: str = DEFAULT_METHOD
    rank: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Null: of any rank, or of a method without one."""
    val_perplexity: Figure | None = None
    """On validation, per token."""
    val_bits_per_byte: Figure | None = None
    tokens_per_second: Figure | None = None
    note: Text = ""

    @field_validator("rank", *FIGURES, mode="before")
    @classmethod
    def _check_number(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("true and false mean nothing here")
        return value

    @field_validator("method")
    @classmethod
    def _check_method(cls, value: str) -> str:
        if value not in METHODS:
            raise ValueError(f"should be {', '.join(METHODS.all())}.{near_matches(value, METHODS.all())}")
        return value

    @property
    def figures(self) -> dict[str, float]:
        """Those that it has."""
        return {name: value for name in FIGURES if (value := getattr(self, name)) is not None}


class ReferenceResults(Frozen):
    """Results of one origin. They are shown, never compared: no part of an analysis or of a run's identity."""

    title: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_text)]
    note: Text = ""
    """Where they are from."""
    left_open: tuple[Text, ...] = Field(default=(), max_length=20)
    """What limits them, one sentence each."""
    results: tuple[ReferenceResult, ...] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _check_results(self) -> ReferenceResults:
        seen: dict[tuple[object, ...], int] = {}
        for index, result in enumerate(self.results):
            if result.rank is not None and "rank" in METHODS.get(result.method).unused_settings:
                raise ValueError(f"results[{index}].rank: {result.method} has no rank; leave it out")
            if not result.figures:
                raise ValueError(f"results[{index}]: it has no figure; give at least one of {', '.join(FIGURES)}")
            first = seen.setdefault((result.model, result.dataset, result.method, result.rank), index)
            if first < index:
                raise ValueError(
                    f"results[{index}]: it is of the same model, dataset, method and rank as results[{first}]; keep one"
                )
        return self


def load_reference(reference: str) -> ReferenceResults:
    """One that is shipped, by its name, or a file by its path. Raises ConfigError naming file and key."""
    path = shipped_references().get(reference) or user_path(reference)
    missing = (
        f"{reference}: there is no such reference file; give the path of one (.yaml), or what is shipped: "
        f"{', '.join(shipped_references())}"
    )
    values = read_yaml(path, kind="reference file", missing=missing, too_large="results from elsewhere are few")
    return read_reference(values, str(path))


def read_reference(values: Any, where: str) -> ReferenceResults:
    """Check the values of a reference file. Raises ConfigError, which calls it `where`."""
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where}: {show_value(values)} is not accepted; a mapping with title and results is expected"
        )
    try:
        return _checked(values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _checked(values: Mapping[Any, Any]) -> ReferenceResults:
    """Raises ConfigError for an unknown key first, which explains what else is missing."""
    try:
        return ReferenceResults.model_validate(dict(values))
    except ValidationError as error:
        problem = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        message = tidy(problem["msg"])
        *section, key = problem["loc"] or (None,)
        if key is None:
            raise ConfigError(message) from None
        within = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in section)
        if problem["type"] == "extra_forbidden":
            refuse_key(within, key, ReferenceResult if section else ReferenceResults)
        place = f"{within}[{key}]" if isinstance(key, int) else f"{within}.{key}".lstrip(".")
        if problem["type"] == "missing":
            raise ConfigError(f"{place}: the key is missing; it is needed") from None
        raise ConfigError(f"{place}: {show_value(problem['input'])} is not accepted; {message}") from None


def _read(value: Any) -> Any:
    if value is None or isinstance(value, ReferenceResults):
        return value
    return load_reference(value) if isinstance(value, str) and value else read_reference(value, "reference")


ExperimentReference = Annotated[ReferenceResults | None, BeforeValidator(_read)]
"""The value of the key `reference` of an experiment: a shipped name, a path, or the results themselves."""
