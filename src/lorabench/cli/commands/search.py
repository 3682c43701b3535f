"""Commands on a search that is under way: `stop` and `keep`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorabench.cli.options import OutputDir
from lorabench.core.errors import InputError, UnknownNameError, near_matches

if TYPE_CHECKING:
    from lorabench.records.schema import Status
    from lorabench.records.store import RecordStore

SearchedRun = Annotated[str, typer.Argument(metavar="RUN_ID", help="The id of a run, as lorabench run shows it.")]


def stop(run_id: SearchedRun, output_dir: OutputDir = Path("outputs")) -> None:
    """Let a run of a search go no further than its next rung, while the search goes on."""
    from lorabench.records.schema import Status
    from lorabench.records.store import RecordStore
    from lorabench.runs.wishes import Wish, make_wish

    store = RecordStore(output_dir)
    status = _status(store, run_id)
    if status in (Status.COMPLETED, Status.STOPPED_EARLY):
        raise InputError(f"{run_id}: it is {status.value.replace('_', ' ')} already; there is nothing to stop")
    make_wish(store, run_id, Wish.STOP)
    print(f"{run_id} goes no further than its next rung")


def keep(run_id: SearchedRun, output_dir: OutputDir = Path("outputs")) -> None:
    """Let a run of a search go on to its end, whatever it scores at rungs."""
    from lorabench.records.schema import Status
    from lorabench.records.store import RecordStore
    from lorabench.runs.wishes import Wish, make_wish

    store = RecordStore(output_dir)
    status = _status(store, run_id)
    if status is Status.COMPLETED:
        raise InputError(f"{run_id}: it is completed already; there is nothing to keep")
    make_wish(store, run_id, Wish.KEEP)
    again = "; the next lorabench run goes on with it" if status is Status.STOPPED_EARLY else ""
    print(f"{run_id} goes on to its end{again}")


def _status(store: RecordStore, run_id: str) -> Status | None:
    """How the run ended, or None where it has not. Raises UnknownNameError where it was not begun."""
    if not store.run_dir(run_id).is_dir():
        names = sorted(os.listdir(store.runs_dir)) if store.runs_dir.is_dir() else []
        raise UnknownNameError(f"{run_id}: {store.runs_dir} has no such run.{near_matches(run_id, names)}")
    record = store.read(run_id)
    return None if record is None else record.status
