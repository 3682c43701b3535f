"""Brings the runs of a W&B project to this machine, so that they can be read beside lorabench's own.

OUTPUT/wandb_pulled/<entity>/<project>/<run>/run.json       name, group, tags, state, configuration, summary
                                            metrics.jsonl  every step and evaluation, in the shape of a run's own file

Everything that comes from the server is data: names are made safe before they become paths, no key is ever written.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorabench.core.errors import DownloadError, InputError, LorabenchError, UnknownNameError
from lorabench.core.storage import write_atomically
from lorabench.records.columns import STEP_FIGURES
from lorabench.trackers.background import plain_reason
from lorabench.trackers.jsonl import METRICS_NAME
from lorabench.trackers.kinds.wandb import has_credentials, quieten

TIMEOUT_SECONDS = 60
_PROJECT = re.compile(r"[^/\\#?%:\x00-\x1f\x7f]{1,128}")


@dataclass(frozen=True)
class PulledRun:
    """One run that lies on this machine now."""

    name: str
    folder: Path
    num_steps: int
    num_evaluations: int


def pull_wandb(
    project: str,
    output_dir: Path,
    *,
    progress: Callable[[str, float, float | None], None] | None = None,
) -> list[PulledRun]:
    """Download configuration, summary and history of every run of `project` (`name`, or `entity/name`).

    Raises InputError for an impossible name, UnknownNameError for a project that is not there, and DownloadError where
    there is no key or W&B cannot be reached. A run pulled before is replaced.
    """
    entity, name = parse_project(project)
    quieten()
    if not has_credentials():
        raise DownloadError("W&B has no key here: set WANDB_API_KEY or log in with `wandb login`, then pull again")
    try:
        return list(_pull(entity, name, output_dir / "wandb_pulled", progress))
    except LorabenchError:
        raise
    except Exception as error:
        reason = plain_reason(error)
        if re.search(r"could not find|not found|404", reason, re.IGNORECASE):
            raise UnknownNameError(f"{project}: W&B has no such project that this key can see") from None
        raise DownloadError(f"{project}: its runs could not be pulled from W&B: {reason}") from None


def parse_project(project: str) -> tuple[str | None, str]:
    """Entity (None: the key's own) and name. Raises InputError for what cannot be a W&B project."""
    parts = project.split("/")
    if len(parts) > 2 or any(not _PROJECT.fullmatch(part) or part in {".", ".."} for part in parts):
        raise InputError(
            f"{project!r} is not a W&B project; accepted is NAME or ENTITY/NAME, as in the project's address"
        )
    return (None, parts[0]) if len(parts) == 1 else (parts[0], parts[1])


def safe_name(text: str) -> str:
    """A file name that says what `text` says as far as possible; different texts never share one."""
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".-")[:80]
    if kept == text:
        return kept
    return f"{kept or 'run'}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def metrics_line(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row of a W&B history in the shape of metrics.jsonl; None for a row without figures.

    Rows that lorabench did not write keep W&B's own step and names, and are of the kind `other`.
    """
    for kind, group, own in (("step", "train", _STEP_NAMES), ("evaluation", "validation", _EVALUATION_NAMES)):
        if isinstance(row.get(f"{group}/step"), int | float):
            values = {
                own.get(name, f"{group}_{name}"): _plain(value)
                for key, value in row.items()
                if key.startswith(f"{group}/") and (name := key.removeprefix(f"{group}/")) != "step"
            }
            return {"kind": kind, "step": int(row[f"{group}/step"])} | values
    figures = {
        key: _plain(value)
        for key, value in row.items()
        if not key.startswith("_") and isinstance(value, bool | int | float | str)
    }
    return {"kind": "other", "step": int(row.get("_step", 0))} | figures if figures else None


_STEP_NAMES = {name: name for name in STEP_FIGURES if name not in {"step", "train_tokens"}} | {"tokens": "train_tokens"}
_EVALUATION_NAMES = {"train_tokens": "train_tokens"}


def _pull(
    entity: str | None, name: str, folder: Path, progress: Callable[[str, float, float | None], None] | None
) -> Iterator[PulledRun]:
    import wandb

    api = wandb.Api(timeout=TIMEOUT_SECONDS)
    entity = entity or api.default_entity
    runs = api.runs(f"{entity}/{name}" if entity else name, lazy=False)
    num_runs = len(runs)
    folder = folder / safe_name(str(entity or "mine")) / safe_name(name)
    for index, run in enumerate(runs):
        if progress is not None:
            progress(f"pulling {name} from W&B", index, num_runs)
        yield _write_run(run, folder / safe_name(str(run.id)))
    if progress is not None:
        progress(f"pulling {name} from W&B", num_runs, num_runs)


def _write_run(run: Any, folder: Path) -> PulledRun:
    lines = [line for row in _history(run) if (line := metrics_line(row)) is not None]
    facts = {
        "id": run.id,
        "name": run.name,
        "group": run.group,
        "job_type": run.job_type,
        "tags": list(run.tags or []),
        "state": run.state,
        "created_at": run.created_at,
        "config": _plain(dict(run.config)),
        "summary": _plain(dict(run.summary_metrics)),
    }
    write_atomically(folder / METRICS_NAME, b"".join(_json(line) + b"\n" for line in lines))
    write_atomically(folder / "run.json", _json(facts, indent=1))
    kinds = [line["kind"] for line in lines]
    return PulledRun(str(run.name), folder, kinds.count("step"), kinds.count("evaluation"))


def _history(run: Any) -> Iterable[dict[str, Any]]:
    """Every row, in W&B's order; nothing is left in W&B's cache."""
    rows = [row for row in run.scan_history(use_cache=False) if isinstance(row, dict)]
    return sorted(rows, key=lambda row: row.get("_step", 0))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _json(value: object, indent: int | None = None) -> bytes:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent).encode("ascii")
