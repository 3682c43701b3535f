"""Where the corpora and models of an experiment file lie: beside the file first, then in the working folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from lorabench.core.catalog import look_beside
from lorabench.core.errors import ConfigError, ModelError, near_matches
from lorabench.core.home import user_path
from lorabench.core.settings import check_reference
from lorabench.corpora.catalog import DATASETS
from lorabench.corpora.references import is_path
from lorabench.corpora.rows.kinds import kind_of
from lorabench.experiment.shipped import shipped_references
from lorabench.experiment.tasks import is_task_path
from lorabench.models.locate import beside

_KEYS = ("path", "train", "validation", "test")
_METRIC = "evaluation.generate.metric"


def corpora_beside(values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The experiment's values, with the paths of corpora that lie beside `file`, whose catalogue counts from now on.

    What is of a wrong type is left for the schema to refuse. Raises ConfigError for paths that are in neither place.
    """
    look_beside(file)
    found = {key: _each(value, file, key) if key == "datasets" else value for key, value in values.items()}
    evaluation = found.get("evaluation")
    if isinstance(evaluation, Mapping) and "also_on" in evaluation:
        found["evaluation"] = {**evaluation, "also_on": _each(evaluation["also_on"], file, "evaluation.also_on")}
    return _entries_too("datasets", values, found)


def tasks_beside(values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The experiment's values, with the paths of tasks of one's own that lie beside `file`.

    Raises ConfigError for paths that are in neither place.
    """
    evaluation = values.get("evaluation")
    if not isinstance(evaluation, Mapping) or not evaluation.get("tasks"):
        return dict(values)
    tasks = evaluation["tasks"]
    named = [
        _locate(task, file, "evaluation.tasks", must_be_path=True)
        if isinstance(task, str) and is_task_path(task)
        else task
        for task in (tasks if isinstance(tasks, list) else [tasks])
    ]
    return {**values, "evaluation": {**evaluation, "tasks": named}}


def models_beside(values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The experiment's values, with the folders of models that lie beside `file`.

    What is of a wrong type is left for the schema to refuse. Raises ConfigError for folders that are in neither place.
    """
    found = {key: _models(value, file) if key == "models" else value for key, value in values.items()}
    return _entries_too("models", values, found)


def _entries_too(key: str, before: Mapping[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What is found, with entries of `adapters` calling it as `key` calls it now."""
    entries, old, new = before.get("adapters"), before.get(key), found.get(key)
    if not (isinstance(entries, list) and isinstance(old, list) and isinstance(new, list)):
        return found
    called = {name: now for name, now in zip(old, new, strict=True) if isinstance(name, str)}

    def named(names: Any) -> Any:
        return [named(name) for name in names] if isinstance(names, list) else called.get(str(names), names)

    return found | {
        "adapters": [
            {**entry, key: named(entry[key])} if isinstance(entry, Mapping) and key in entry else entry
            for entry in entries
        ]
    }


def metrics_beside(values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The experiment's values, with the files of metrics of one's own that lie beside `file`.

    What is of a wrong type is left for the schema to refuse. Raises ConfigError for files that are in neither place.
    """
    evaluation = values.get("evaluation")
    generate = evaluation.get("generate") if isinstance(evaluation, Mapping) else None
    if not isinstance(evaluation, Mapping) or generate is None:
        return dict(values)
    located: Any
    if isinstance(generate, Mapping):
        located = {key: _metrics(value, file) if key == "metric" else value for key, value in generate.items()}
    else:
        located = _metrics(generate, file)
    return {**values, "evaluation": {**evaluation, "generate": located}}


def reference_beside(values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The experiment's values, with the path of a reference file that lies beside `file`.

    What is of a wrong type is left for the schema to refuse. Raises ConfigError for a path that is in neither place.
    """
    reference = values.get("reference")
    if not isinstance(reference, str) or reference in shipped_references():
        return dict(values)
    return {**values, "reference": _locate(reference, file, "reference", must_be_path=True)}


def _metrics(metric: Any, file: Path) -> Any:
    if isinstance(metric, list):
        return [_metrics(item, file) for item in metric]
    path, _, function = metric.rpartition(":") if isinstance(metric, str) else ("", "", "")
    return f"{_locate(path, file, _METRIC, must_be_path=True)}:{function}" if path.endswith(".py") else metric


def _models(models: Any, file: Path) -> Any:
    named = [models] if isinstance(models, str) else models
    if not isinstance(named, list) or not all(isinstance(model, str) and model for model in named):
        return models
    try:
        return [beside(check_reference(model), file.parent) for model in named]
    except ValueError:
        return models
    except ModelError as error:
        raise ConfigError(f"{file}: {error}") from None


def _each(value: Any, file: Path, key: str) -> Any:
    return [_one(item, file, key) for item in value] if isinstance(value, list) else _one(value, file, key)


def _one(corpus: Any, file: Path, key: str) -> Any:
    if isinstance(corpus, str):
        return _locate(corpus, file, key)
    if not isinstance(corpus, Mapping):
        return corpus
    return {name: _paths(value, file, f"{key}.{name}") if name in _KEYS else value for name, value in corpus.items()}


def _paths(value: Any, file: Path, key: str) -> Any:
    every = value if isinstance(value, list) else [value]
    located = [_locate(path, file, key, must_be_path=True) if isinstance(path, str) else path for path in every]
    return located if isinstance(value, list) else located[0]


def _locate(reference: str, file: Path, key: str, *, must_be_path: bool = False) -> str:
    """The reference, or the path beside the file that it means. What exists goes before the hub."""
    try:
        path = user_path(reference)
        if path.is_absolute() or "://" in reference or not reference or (not must_be_path and _is_known(reference)):
            return reference
        if _exists(file.parent / path):
            return os.path.join(file.parent or ".", path)
        if _exists(path):
            return reference if must_be_path or is_path(reference) else os.path.join(".", reference)
        if not must_be_path and not is_path(reference):
            return reference
    except (OSError, ValueError):
        return reference
    here, there = file.parent.absolute(), Path.cwd()
    places = f" in {here}" if here == there else f", neither in {here}, beside the experiment, nor in {there}"
    raise ConfigError(f"{file}: {key}: {reference}: there is no such file{places}{_near(reference, file)}")


def _is_known(reference: str) -> bool:
    return reference == "-" or reference in DATASETS.entries


def _exists(path: Path) -> bool:
    return path.exists() or (has_magic(str(path)) and bool(glob(str(path), recursive=True)))


def _near(reference: str, file: Path) -> str:
    """What the message adds where a folder has files of nearly that name."""
    folders = {(file.parent / reference).parent, Path(reference).parent}
    names = [found.name for folder in folders if folder.is_dir() for found in folder.iterdir() if kind_of(found)]
    near = near_matches(Path(reference).name, names)
    return f".{near}" if near else ""
