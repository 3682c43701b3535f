"""Tasks of EleutherAI's lm-evaluation-harness, run on a model that is loaded, with the adapter that is attached."""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lorabench.core.device import own_random_state
from lorabench.core.errors import DataError, UnknownNameError, near_matches
from lorabench.experiment.tasks import is_task_path
from lorabench.models.base import FrozenBase

BATCH_SIZE = 8
BOOTSTRAPS = 1000
"""For standard errors that have no formula."""


@dataclass(frozen=True)
class TaskFigures:
    """What one model scored on one task."""

    num_examples: int
    num_fewshot: int | None
    metrics: Mapping[str, float]
    errors: Mapping[str, float]
    """Standard errors, where the harness has them."""
    higher_is_better: Mapping[str, bool]
    samples: Sequence[Mapping[str, Any]]
    """The harness's own rows, by document; none of a group."""


def check_tasks(references: Sequence[str]) -> None:
    """Raise UnknownNameError, with near matches, or DataError for what the harness has no task of."""
    for reference in references:
        _find(reference)


def run_tasks(base: FrozenBase, folder: Path, reference: str, num_examples: int | None) -> dict[str, TaskFigures]:
    """Figures by task, of all that `reference` means; `folder` holds the tokenizer.

    Random states stay as they were. Raises UnknownNameError or DataError, and whatever a task raises.
    """
    names, manager = _find(reference)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    model = base.model.get_base_model() if hasattr(base.model, "peft_type") else base.model
    with _quietly(), _own_states(base):
        wrapped = HFLM(
            pretrained=model,
            tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True),
            batch_size=BATCH_SIZE,
            device=str(base.device),
        )
        results = simple_evaluate(
            model=wrapped, tasks=names, task_manager=manager, limit=num_examples, bootstrap_iters=BOOTSTRAPS
        )
    return {name: _figures(name, results) for name in results["results"]}


def paired_error(metric: str, base: Sequence[Mapping[str, Any]], adapted: Sequence[Mapping[str, Any]]) -> float | None:
    """Standard error of the difference of two means over the same documents; None for what is no mean of numbers."""
    pairs = [
        (theirs[metric], ours[metric])
        for theirs, ours in zip(base, adapted, strict=False)
        if isinstance(theirs.get(metric), int | float) and isinstance(ours.get(metric), int | float)
    ]
    if len(pairs) < 2 or len(pairs) != len(base) or len(base) != len(adapted):
        return None
    differences = np.diff(np.asarray(pairs, dtype=np.float64), axis=1)[:, 0]
    return float(differences.std(ddof=1) / math.sqrt(len(differences)))


def _find(reference: str) -> tuple[list[str], Any]:
    """Names that a reference means, and the harness's manager that knows them."""
    with _quietly():
        from lm_eval.tasks import TaskManager

        if not is_task_path(reference):
            manager = TaskManager()
            if reference not in manager.task_index:
                raise UnknownNameError(
                    f"evaluation.tasks: {reference[:80]!r} is no task of lm-evaluation-harness; `lm-eval ls tasks` "
                    f"lists them.{near_matches(reference, manager.all_tasks)}"
                )
            return [reference], manager
        path = Path(reference)
        folder = path if path.is_dir() else path.parent
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        index = manager.task_index
    names = [name for name in manager.all_subtasks if path in (folder, index[name].yaml_path)]
    names = names or [name for name in manager.all_groups if index[name].yaml_path == path]
    if not names:
        raise DataError(f"evaluation.tasks: {reference}: there is no task in it; a task file has at least `task: NAME`")
    return names, manager


def _figures(name: str, results: Mapping[str, Any]) -> TaskFigures:
    values: dict[str, float] = {}
    errors: dict[str, float] = {}
    for key, value in results["results"][name].items():
        metric, _, filtered = key.partition(",")
        if not filtered or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        into = errors if metric.endswith("_stderr") else values
        label = metric.removesuffix("_stderr")
        into[label if filtered == "none" else f"{label} ({filtered})"] = float(value)
    better = results.get("higher_is_better", {}).get(name) or {}
    counts = results.get("n-samples", {}).get(name) or {}
    samples = sorted(results.get("samples", {}).get(name, ()), key=lambda sample: sample["doc_id"])
    return TaskFigures(
        num_examples=int(counts.get("effective", len(samples))),
        num_fewshot=results.get("n-shot", {}).get(name),
        metrics=values,
        errors=errors,
        higher_is_better={metric: better[label] for metric in values if (label := metric.split(" (")[0]) in better},
        samples=samples,
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """The harness neither warns nor draws bars: the view is ours."""
    import datasets
    import lm_eval.api.model
    import lm_eval.api.task
    import lm_eval.models.huggingface
    from tqdm import tqdm

    def _without_bar(*arguments: Any, **options: Any) -> Any:
        return tqdm(*arguments, **{**options, "disable": True})

    modules = (lm_eval.api.model, lm_eval.api.task, lm_eval.models.huggingface)
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    for module in modules:
        module.__dict__["tqdm"] = _without_bar
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for module in modules:
            module.__dict__["tqdm"] = tqdm
        logger.setLevel(level)


@contextmanager
def _own_states(base: FrozenBase) -> Iterator[None]:
    """The harness seeds Python, NumPy and torch: what follows must not depend on it."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with own_random_state(base.device):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
