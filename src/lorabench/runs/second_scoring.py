"""Scores test a second time for a finished run: refused unless asked for explicitly, and then visible for ever."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lorabench.core.device import Device, choose_device
from lorabench.core.errors import InputError
from lorabench.core.locks import lock_owner
from lorabench.core.machine import prepare_process
from lorabench.core.progress import View
from lorabench.core.storage import sha256_file
from lorabench.experiment import identity
from lorabench.experiment.identity import BaseVariant
from lorabench.experiment.plan import make_plan
from lorabench.methods.saved import attach_saved
from lorabench.records.provenance import now
from lorabench.records.schema import RunRecord, Status, name_of_test_documents
from lorabench.records.store import RecordStore
from lorabench.runs.group import GroupWork, SharedBase, write_table
from lorabench.runs.leases import lease_path, try_lease
from lorabench.runs.reproduction import experiment_of
from lorabench.runs.task import SharedInputs


def score_test_again(run_id: str, output_dir: Path, *, again: bool, view: View, device: str | None = None) -> RunRecord:
    """Score the saved adapter on test once more and flag the record. Raises InputError without `again`."""
    store = RecordStore(output_dir)
    record = store.get(run_id)
    if record.status is not Status.COMPLETED:
        raise InputError(f"{run_id}: the run is {record.status}; test is scored when a run ends")
    if not again:
        raise InputError(
            f"{run_id}: test was scored when the run ended; looking again makes it less of a test. "
            "With --again it is scored once more and the record is flagged for ever"
        )
    where = choose_device(device)
    if where.note:
        view.message(where.note)
    lease = lease_path(store, run_id)
    with try_lease(lease) as mine:
        if not mine:
            raise InputError(f"{run_id}: {lock_owner(lease)} is working on it; try again later")
        damaged = store.damaged_files(record)
        if damaged:
            raise InputError(
                f"{run_id}: {damaged[0]} is damaged; give its lorabench run again, which does the run again"
            )
        store.check_adapter(record)
        flagged = _score(store, record, view, where)
        store.write(flagged)
        for path in (store.run_dir(run_id) / "documents").glob("test*.parquet"):  # which earlier records needed
            if f"documents/{path.name}" != flagged.test_documents:
                with suppress(OSError):
                    path.unlink()
    return flagged


def _score(store: RecordStore, record: RunRecord, view: View, device: Device) -> RunRecord:
    run_id, spec = record.run_id, record.spec
    prepare_process()
    (group,) = make_plan(experiment_of(record), device).groups
    if group.runs[0].run_id != identity.run_id(spec):
        raise InputError(f"{run_id}: the model or corpus has changed since; lorabench reproduce says how")
    work = GroupWork(
        shared=SharedBase.load(group.model.reference, BaseVariant.of(spec), device, view.progress),
        inputs=SharedInputs.of(group, record.references.get("text_field", "text")),
        base_scores_dir=store.base_scores_dir,
        progress=view.progress,
    )
    base_scores = work.base_scores(spec.dataset, "test", spec)
    attach_saved(work.shared.base, store.run_dir(run_id) / "adapter")
    view.phase("test, again")
    scores = work.score(spec.dataset, "test", spec)
    name = name_of_test_documents(record.num_test_scorings + 1)
    write_table(store.run_dir(run_id) / name, scores.table(base_scores))
    files = {key: digest for key, digest in record.files.items() if key != record.test_documents}
    return record.model_copy(
        update={
            "test": scores.total(),
            "num_test_scorings": record.num_test_scorings + 1,
            "notes": (*record.notes, f"test was scored again on {now()}"),
            "files": {**files, name: sha256_file(store.run_dir(run_id) / name)},
        }
    )
