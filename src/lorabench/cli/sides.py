"""What `lorabench compare` compares, by the name that people give it. Apart from run names, for it imports torch."""

from __future__ import annotations

import os
from pathlib import Path

from lorabench.cli.run_names import BEST, resolve_run
from lorabench.core.errors import InputError, UnknownNameError
from lorabench.methods.saved import CONFIGURATION, read_configuration
from lorabench.models.locate import find_model
from lorabench.records.store import RECORD_NAME, RecordStore
from lorabench.runs.comparison import Side


def resolve_side(name: str, output_dir: Path) -> Side:
    """A run by one of its names, an adapter's folder in PEFT's format, or a model. Raises InputError."""
    folder = Path(name)
    if (folder / CONFIGURATION).is_file():
        base = read_configuration(folder).get("base_model_name_or_path")
        if not isinstance(base, str):
            raise InputError(f"{folder / CONFIGURATION}: it names no base (base_model_name_or_path)")
        return Side(name, base, folder)
    if os.sep in name and not name.startswith(f"{BEST}:") and not (folder / RECORD_NAME).is_file():
        return Side(name, name)
    if _is_model(name):  # ids of its runs begin with it
        return Side(name, name)
    try:
        run_id, where = resolve_run(name, output_dir)
    except UnknownNameError:
        return Side(name, name)
    store = RecordStore(where)
    record = store.get(run_id)
    model = record.references.get("model", record.spec.model)
    return Side(run_id, model, store.run_dir(run_id) / "adapter", record, store)


def _is_model(name: str) -> bool:
    """Whether the catalogue, or a folder, has a model of this name."""
    try:
        find_model(name)
    except InputError:
        return False
    return True
