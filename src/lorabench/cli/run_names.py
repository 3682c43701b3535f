"""Which run a command means: people type less than a whole id."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorabench.core.errors import InputError
from lorabench.core.formatting import listed
from lorabench.records.store import RECORD_NAME, RecordStore

BEST = "best"
_MAX_NAMED = 6


def resolve_run(name: str, output_dir: Path) -> tuple[str, Path]:
    """Id and output folder of the run meant by `name`.

    That is a whole id, the beginning of one or of its last digits, the path of a run's folder (whose own output folder
    then counts), or `best` for the recommended run; `best:CORPUS`, `best:EXPERIMENT` or `best:EXPERIMENT:CORPUS` where
    there are several, each with a run of its own.

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


@dataclass(frozen=True)
class _Choice:
    """What an experiment's report recommends for a corpus."""

    experiment: str
    corpus: str
    run_id: str | None
    claim: str

    @property
    def whole(self) -> str:
        return f"{self.experiment}:{self.corpus}"


def _best(name: str, store: RecordStore) -> str:
    """The recommended run, chosen on validation as everything is; each experiment's by itself, as it is reported."""
    choices = _choices(store)
    called = f"{BEST}:{name}" if name else BEST
    wanted = [one for one in choices if name in ("", one.corpus, one.experiment, one.whole)]
    has_one = len({one.experiment for one in choices}) < 2
    if not wanted:
        known = [one.corpus for one in choices] + ([] if has_one else [one.experiment for one in choices])
        accepted = _accepted(known) or "nothing, for no run has a result"
        where = f"corpus{'' if has_one else ' or experiment'} in {store.output_dir}"
        raise InputError(f"{called}: there is no such {where}; accepted: {accepted}")
    corpora = {one.corpus for one in wanted}
    if len(corpora) > 1:
        accepted = _accepted([one.corpus if has_one else one.whole for one in wanted])
        raise InputError(f"{called}: there are {len(corpora)} corpora, each with its own best; accepted: {accepted}")
    if len({one.run_id for one in wanted}) > 1:
        accepted = _accepted([one.whole if name else one.experiment for one in wanted])
        differ = f"there are {len(wanted)} experiments on {wanted[0].corpus}, each with its own best"
        raise InputError(f"{called}: {differ}; accepted: {accepted}")
    if wanted[0].run_id is None:
        raise InputError(f"{called}: nothing is recommended for {wanted[0].corpus}; give a run's id: {wanted[0].claim}")
    return wanted[0].run_id


def _accepted(names: Sequence[str]) -> str:
    return listed([f"{BEST}:{name}" for name in dict.fromkeys(names)], _MAX_NAMED)


def _choices(store: RecordStore) -> list[_Choice]:
    """Of every experiment in the folder and each of its corpora."""
    from lorabench.analysis.recommendations import recommended_run
    from lorabench.report.build import reports_of

    choices = []
    for report in reports_of(store):
        for chosen in report.findings.recommendations:
            run_id = recommended_run(chosen, report.findings, report.records)
            choices.append(_Choice(report.experiment, str(chosen.corpus), run_id, chosen.claim))
    return choices
