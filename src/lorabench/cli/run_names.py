"""Which run a command means: people type less than a whole id."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lorabench.core.errors import InputError, UnknownNameError
from lorabench.core.formatting import listed
from lorabench.methods.saved import CONFIGURATION
from lorabench.records.store import RECORD_NAME, RecordStore
from lorabench.runs.comparison import Side

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


def resolve_side(name: str, output_dir: Path) -> Side:
    """A run by one of its names, an adapter's folder in PEFT's format, or a model. Raises InputError."""
    folder = Path(name)
    if (folder / CONFIGURATION).is_file():
        base = json.loads((folder / CONFIGURATION).read_bytes()).get("base_model_name_or_path")
        if not isinstance(base, str):
            raise InputError(f"{folder / CONFIGURATION}: it names no base (base_model_name_or_path)")
        return Side(name, base, folder)
    if os.sep in name and not name.startswith(f"{BEST}:") and not (folder / RECORD_NAME).is_file():
        return Side(name, name)
    try:
        run_id, where = resolve_run(name, output_dir)
    except UnknownNameError:
        return Side(name, name)
    store = RecordStore(where)
    record = store.get(run_id)
    model = record.references.get("model", record.spec.model)
    return Side(run_id, model, store.run_dir(run_id) / "adapter", record, store)


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
