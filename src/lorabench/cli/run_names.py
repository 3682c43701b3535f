"""Which run a command means: people type less than a whole id."""

from __future__ import annotations

import os
from pathlib import Path

from lorabench.core.errors import InputError
from lorabench.core.formatting import listed
from lorabench.records.store import RECORD_NAME, RecordStore

BEST = "best"
_MAX_NAMED = 6


def resolve_run(name: str, output_dir: Path) -> tuple[str, Path]:
    """Id and output folder of the run meant by `name`.

    That is a whole id, the beginning of one or of its last digits, the path of a run's folder (whose own output folder
    then counts), `best` for the recommended run of the one corpus, or `best:CORPUS`.

    Raises InputError where nothing or more than one run is meant.
    """
    store = RecordStore(output_dir)
    run_ids = store.run_ids()
    if name in run_ids:
        return name, output_dir
    if name == BEST or name.startswith(f"{BEST}:"):
        return _best(name.removeprefix(BEST).removeprefix(":"), store), output_dir
    if os.sep in name:
        return _in_folder(Path(name))
    meant = [run_id for run_id in run_ids if run_id.startswith(name) or run_id.rpartition("_")[2].startswith(name)]
    if not name or not meant:
        return store.get(name).run_id, output_dir
    if len(meant) > 1:
        raise InputError(f"{name}: {len(meant)} runs are called so; type more of {listed(meant, _MAX_NAMED)}")
    return meant[0], output_dir


def _in_folder(path: Path) -> tuple[str, Path]:
    folder = path.resolve()
    if not (folder / RECORD_NAME).is_file() or folder.parent.name != "runs":
        raise InputError(f"{path}: this is not the folder of a run, DIR/runs/RUN_ID with its {RECORD_NAME}")
    return folder.name, folder.parent.parent


def _best(corpus: str, store: RecordStore) -> str:
    """The recommended run, chosen on validation as everything is."""
    from lorabench.analysis.recommendations import recommended_run
    from lorabench.report.build import findings_of

    records, _ = store.read_all()
    findings = findings_of(records, store)
    labels = [str(choice.corpus) for choice in findings.recommendations]
    wanted = [choice for choice in findings.recommendations if corpus in ("", choice.corpus)]
    if not wanted:
        accepted = listed([f"{BEST}:{label}" for label in labels], _MAX_NAMED) or "nothing, for no run has a result"
        raise InputError(f"{BEST}:{corpus}: there is no such corpus in {store.output_dir}; accepted: {accepted}")
    if len(wanted) > 1:
        accepted = listed([f"{BEST}:{label}" for label in labels], _MAX_NAMED)
        raise InputError(f"{BEST}: there are {len(wanted)} corpora, each with its own best; accepted: {accepted}")
    run_id = recommended_run(wanted[0], findings, records)
    if run_id is None:
        raise InputError(f"{BEST}: nothing is recommended for {wanted[0].corpus}; give a run's id: {wanted[0].claim}")
    return run_id
