"""What `evaluation.tasks` names: tasks of lm-evaluation-harness, or YAML files and folders of one's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from lorabench.core.errors import DataError, MissingExtraError
from lorabench.core.home import user_path
from lorabench.core.revisions import folder_revision

YAML_SUFFIXES = (".yaml", ".yml")
_READ_BY_TASKS = (*YAML_SUFFIXES, ".py", ".json", ".jsonl", ".csv", ".parquet")
"""Files beside a task that decide what it asks."""


def is_task_path(reference: str) -> bool:
    """Whether it means a file or a folder rather than a task of the harness."""
    return "/" in reference or "\\" in reference or reference.lower().endswith(YAML_SUFFIXES)


def plan_tasks(references: Sequence[str], num_examples: int | None) -> dict[str, str]:
    """Revisions by task, or by the absolute path of tasks of one's own; the harness is not imported.

    A revision changes with the files, the harness's version and the number of examples. Raises MissingExtraError where
    the harness is not installed, DataError for a path without tasks.
    """
    if not references:
        return {}
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingExtraError("evaluation.tasks", "harness")
    limit = "" if num_examples is None else f", first {num_examples}"
    planned = {}
    for reference in references:
        if is_task_path(reference):
            path = user_path(reference).absolute()
            planned[str(path)] = f"{_content(path)}{limit}"
        else:
            planned[reference] = f"{reference} of lm-eval {version('lm_eval')}{limit}"
    return planned


def _content(path: Path) -> str:
    """One hash over a folder's files, or over those beside a file."""
    folder = path if path.is_dir() else path.parent
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in _READ_BY_TASKS and file.is_file()]
    except OSError as error:
        raise DataError(f"evaluation.tasks: {path}: it cannot be read: {error.strerror}") from None
    wanted = [file for file in files if file.suffix.lower() in YAML_SUFFIXES and path in (file, folder)]
    if not wanted:
        raise DataError(
            f"evaluation.tasks: {path}: there is no such task file (.yaml), nor a folder with some; give a path of "
            "one, or the name of a task of lm-evaluation-harness"
        )
    return folder_revision(files)
