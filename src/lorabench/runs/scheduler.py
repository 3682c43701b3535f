"""Runs an experiment: what is missing of it, group by group, each run recorded as soon as it ends."""

from __future__ import annotations

import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from lorabench.core.device import choose_device
from lorabench.core.errors import BusyError, CancelledError, DiskError, InputError
from lorabench.core.home import user_path
from lorabench.core.locks import is_free, lock_owner
from lorabench.core.machine import prepare_process
from lorabench.core.storage import disk_error
from lorabench.corpora.references import write_reference
from lorabench.experiment.estimates import remember_speed
from lorabench.experiment.identity import BaseVariant
from lorabench.experiment.plan import Group, Plan, PlannedRun, make_plan
from lorabench.experiment.schema import Experiment
from lorabench.models.locate import is_model_path
from lorabench.records.measurements import is_measurable, missing_in
from lorabench.records.provenance import command_line, describe_environment
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import DamagedRecordError, RecordProblem, RecordStore
from lorabench.report.build import ReportPaths, build_report, rebuild_table
from lorabench.runs.context import RunContext
from lorabench.runs.group import GroupWork, SharedBase
from lorabench.runs.leases import SILENCE_SECONDS, Watch, try_lease
from lorabench.runs.measuring import measure_finished, unmeasured_notes
from lorabench.runs.outcome import Counts, Outcome
from lorabench.runs.remaining import RETRIED, measuring_seconds, with_recorded_ids
from lorabench.runs.run import execute_run
from lorabench.runs.stopping import stop_in_good_order
from lorabench.runs.view import RunView
from lorabench.trackers.make import make_trackers
from lorabench.training.checkpoints import remove_checkpoints

_PAGE_SECONDS = 30.0
_PAGE_SHARE = 0.05
"""Of the time at most this much goes into rebuilding the page, however many runs it shows."""
_POLL_SECONDS = 1.0


def run_experiment(
    experiment: Experiment,
    output_dir: Path | str = "outputs",
    *,
    trackers: Sequence[str] = ("wandb",),
    upload_adapters: bool = False,
    retry_failed: bool = False,
    checkpoint_seconds: float = 60.0,
    device: str | None = None,
    view: RunView,
) -> Outcome:
    """Do what is missing of the experiment and rebuild the results.

    Finished runs are never done again, failed ones only with `retry_failed`, cancelled ones are taken up where they
    stopped. Finished adapters are measured where the experiment asks for more than their records hold. Raises
    InputError before anything is done, EnvironmentProblem where the machine cannot go on.
    """
    check_run_options(output_dir, checkpoint_seconds)
    prepare_process()
    store = RecordStore(Path(output_dir))
    plan = with_recorded_ids(make_plan(experiment, choose_device(device)), store)
    tracker_group = make_trackers(trackers, store.output_dir, upload_adapters=upload_adapters)
    _make_folders(store)
    with (
        tracker_group,
        view as shown,
        stop_in_good_order(
            lambda: shown.message("Stopping as soon as nothing is lost by it; Ctrl-C again stops at once")
        ) as should_stop,
    ):
        context = RunContext(
            experiment=experiment.name,
            question=experiment.question,
            store=store,
            trackers=tracker_group,
            view=shown,
            device=plan.device,
            environment=describe_environment(plan.device, command_line()),
            should_stop=should_stop,
            checkpoint_seconds=checkpoint_seconds,
        )
        for warning in plan.warnings:
            shown.message(warning)
        outcome = _Runner(context, plan, retry_failed).run()
    if outcome.records:
        report = _final_report(store)
        outcome.results_dir, outcome.problems = report.results_dir, report.problems
    return outcome


def _final_report(store: RecordStore) -> ReportPaths:
    """Rebuild every view, after any other process that is at it."""
    try:
        return build_report(store)
    except KeyboardInterrupt:
        again = shlex.join(["lorabench", "report", str(store.output_dir)])
        raise CancelledError(
            f"stopped before the results were rebuilt; every run is kept, and {again} does it"
        ) from None


def check_run_options(output_dir: Path | str, checkpoint_seconds: float) -> None:
    """Raise InputError for options that mean nothing."""
    if not isinstance(output_dir, str | os.PathLike) or "\0" in os.fspath(output_dir):
        raise InputError(f"output_dir: {str(output_dir)[:80]!r} is not accepted; a path is expected")
    if Path(output_dir).exists() and not Path(output_dir).is_dir():
        raise InputError(f"{output_dir}: it is not a folder; results need one of their own")
    if not isinstance(checkpoint_seconds, int | float) or not checkpoint_seconds >= 0:
        raise InputError(f"checkpoint_seconds: {checkpoint_seconds!r} is not accepted; a number from 0 is expected")


def _make_folders(store: RecordStore) -> None:
    """Find out before anything is spent that the output cannot be written."""
    for folder in (store.runs_dir, store.results_dir, store.base_scores_dir):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise disk_error(folder, error) from None


class _Runner:
    """One pass over the groups, and then a wait for the runs that other processes hold."""

    def __init__(self, context: RunContext, plan: Plan, retry_failed: bool) -> None:
        self.context = context
        self.plan = plan
        self.retry_failed = retry_failed
        self.attempts: dict[str, int] = {}
        """How often each run had been tried when this process began: what fails later is not tried again by it."""
        self.whole: set[str] = set()
        """Finished runs whose files were found to be as they were written."""
        self.tried: set[str] = set()
        self.left_alone: set[str] = set()
        """Runs whose record or lease cannot be used though it is not damaged: said once, and the others go on."""
        self.cancelled = False
        self.shared: SharedBase | None = None
        self.page_due_at = time.monotonic() + _PAGE_SECONDS
        self.complaint = ""
        """Why table and page could not be rebuilt the last time."""

    def run(self) -> Outcome:
        """Do every missing run once, then wait for those that others are doing."""
        for run in self.plan.runs:
            try:
                sentences = self.context.store.make_room(run.run_id)
            except DiskError as problem:
                self._leave_alone(run.run_id, problem)
                continue
            for sentence in sentences:
                self.context.view.message(sentence)
        self.attempts = {run.run_id: self._num_attempts(run.run_id) for run in self.plan.runs}
        wanted = self._missing()
        self._tidy(self.whole)
        expected = self._expected_seconds(wanted)
        skipped = {run.run_id for run in self.plan.runs} - {run.run_id for run in wanted}
        num_failed = len(skipped - self.whole - self.left_alone)
        num_runs = len(self.plan.runs) - len(self.left_alone)
        self.context.view.plan(num_runs, num_runs - len(wanted), expected, num_failed)
        finished_before = {run.run_id for run in wanted} & self.whole
        if finished_before:
            self.context.view.message(
                f"{len(finished_before)} of them finished before: their adapters are measured, not trained again"
            )
        while wanted and not self.cancelled:
            held = [run for group in self.plan.groups for run in self._run_group(group)]
            wanted = self._missing() if held else []
            if wanted and not self.cancelled:
                self._wait(wanted)
                wanted = self._missing()
        planned = {run.run_id: run for run in self.plan.runs}
        records = {record.run_id: record for record in self.context.store.read_all()[0] if record.run_id in planned}
        return Outcome(
            records=[records[run_id] for run_id in sorted(records)],
            num_runs=len(planned),
            num_skipped=len(skipped),
            num_unmeasured=sum(_lacks_measurements(planned[run_id], record) for run_id, record in records.items()),
            counts=Counts.of(
                list(planned), records, tried=self.tried - finished_before, skipped=skipped | finished_before
            ),
            cancelled=self.cancelled,
        )

    def _wait(self, wanted: Sequence[PlannedRun]) -> None:
        """Until one of the runs that other processes hold is free, or the user has had enough."""
        paths = [self._lease_path(run.run_id) for run in wanted]
        path = paths[0]
        watch, told = Watch(path), False
        runs = "a run" if len(wanted) == 1 else f"{len(wanted)} runs"
        self.context.view.phase(f"waiting for {runs} that {lock_owner(path)} is doing")
        while not self.context.should_stop():
            if any(map(_may_be_free, paths)):
                return
            if not told and watch.silent_seconds() > SILENCE_SECONDS:
                self.context.view.message(
                    f"{lock_owner(path)} holds {wanted[0].run_id} and gives no sign of life; if it was stopped, let "
                    "it go on or end it, and the run is taken over"
                )
                told = True
            time.sleep(_POLL_SECONDS)
        self.cancelled = True

    def _num_attempts(self, run_id: str) -> int:
        try:
            record = self.context.store.read(run_id)
        except DamagedRecordError:
            return 0
        except RecordProblem as problem:  # not ours to replace: the other runs go on
            self._leave_alone(run_id, problem)
            return 0
        return 0 if record is None else record.attempt

    def _leave_alone(self, run_id: str, problem: DiskError) -> None:
        """Name what is in the way, once; the other runs go on."""
        if run_id not in self.left_alone:
            self.context.view.message(f"{problem}; the run is left alone")
        self.left_alone.add(run_id)

    def _tidy(self, finished: Iterable[str]) -> None:
        """Remove the checkpoints of runs that were killed after their record was written."""
        for run_id in finished:
            folder = self.context.store.checkpoints_dir(run_id)
            if folder.is_dir():
                with suppress(DiskError), try_lease(self._lease_path(run_id)) as mine:
                    if mine:
                        remove_checkpoints(folder)

    def _missing(self) -> list[PlannedRun]:
        return [run for run in self.plan.runs if self._is_wanted(run)]

    def _expected_seconds(self, wanted: Sequence[PlannedRun]) -> dict[str, float]:
        """About how long each wanted run takes; a finished one is only measured."""
        expected = {run.run_id: run.estimated_seconds for run in wanted}
        measured = [run for run in wanted if run.run_id in self.whole]
        groups = {run.run_id: group for group in self.plan.groups for run in group.runs}
        for run in measured:
            record = self.context.store.get(run.run_id)
            expected[run.run_id] = measuring_seconds(
                groups[run.run_id], run, missing_in(record, run.measures), self.plan.device
            )
        return expected

    def _is_wanted(self, run: PlannedRun) -> bool:
        """Whether this process is to do or to measure the run. Nothing is changed: another one may be at it."""
        run_id = run.run_id
        if run_id in self.tried or run_id in self.left_alone:
            return False
        try:
            record = self.context.store.read(run_id)
        except DamagedRecordError:
            return True
        if record is None or record.goes_on:
            return True
        if record.status in RETRIED:
            return self.retry_failed and record.attempt <= self.attempts[run_id]
        if run_id not in self.whole and self.context.store.damaged_files(record):
            return True
        self.whole.add(run_id)
        return _lacks_measurements(run, record)

    def _previous(self, run_id: str) -> RunRecord | None:
        """The earlier record, if there is one to go on from; damage is set aside. Call only with the lease."""
        store, say = self.context.store, self.context.view.message
        try:
            record = store.read(run_id)
        except DamagedRecordError as error:
            say(f"{error}; it was set aside as {store.set_aside(run_id).name}")
            record = None
        damaged = [] if record is None else store.damaged_files(record)
        for name in damaged:
            path = store.run_dir(run_id) / name
            say(f"{path} is {'not as it was written' if path.exists() else 'missing'}; the run will be done again")
        for name in dict.fromkeys("adapter" if name.startswith("adapter/") else name for name in damaged):
            if (store.run_dir(run_id) / name).exists():
                say(f"{run_id}: {name} was set aside as {store.set_aside(run_id, name).name}")
        if damaged:
            store.set_aside(run_id)
        for sentence in store.make_room_inside(run_id):
            say(sentence)
        return None if damaged else record

    def _lease_path(self, run_id: str) -> Path:
        return self.context.store.run_dir(run_id) / "lease"

    def _run_group(self, group: Group) -> list[PlannedRun]:
        """Do the group's missing runs; returns those that another process holds."""
        held = []
        works: dict[BaseVariant, GroupWork] = {}
        for run in group.runs:
            if self.cancelled:
                break
            if not self._is_wanted(run):
                continue
            with ExitStack() as stack:
                try:
                    mine = stack.enter_context(try_lease(self._lease_path(run.run_id)))
                except DiskError as problem:
                    self._leave_alone(run.run_id, problem)
                    continue
                if not mine:
                    held.append(run)
                    continue
                if self._is_wanted(run):
                    open_work = partial(self._open, group, BaseVariant.of(run.spec), works)
                    previous = self._previous(run.run_id)
                    if previous is not None and _lacks_measurements(run, previous):
                        self._measure(group, run, previous, open_work)
                    else:
                        self._do(group, run, previous, open_work)
        return held

    def _references(self, group: Group) -> dict[str, str]:
        """What the experiment calls things, where that is not a catalogue name; paths are made absolute."""
        kept = {}
        if is_model_path(group.model.reference):
            kept["model"] = str(user_path(group.model.reference).absolute())
        corpora = {"dataset": group.dataset} | {f"also_on:{other.name}": other for other in group.also_on}
        kept |= {key: written for key, plan in corpora.items() if (written := write_reference(plan.reference))}
        text_field = self.plan.experiment.text_field
        fields = {"text_field": text_field} if text_field != "text" else {}
        return kept | fields

    def _do(
        self, group: Group, run: PlannedRun, previous: RunRecord | None, open_work: Callable[[], GroupWork]
    ) -> None:
        self.tried.add(run.run_id)
        self.context.view.start_run(run.run_id, len(self.tried), run.steps)
        record = execute_run(self.context, open_work, run, self._references(group), previous)
        self._finish(record)
        speed = record.speed
        if record.status is Status.COMPLETED and speed is not None:
            rates = speed.tokens_per_second, speed.evaluation_tokens_per_second
            remember_speed(group.model.shape, run.workload, *rates, self.plan.device)

    def _measure(self, group: Group, run: PlannedRun, record: RunRecord, open_work: Callable[[], GroupWork]) -> None:
        """Measure a finished adapter as far as its record lacks something."""
        self.tried.add(run.run_id)
        self.context.view.start_run(run.run_id, len(self.tried))
        references = {key: path for key, path in self._references(group).items() if key.startswith("also_on:")}
        self._finish(measure_finished(self.context, open_work, run, record, references))

    def _finish(self, record: RunRecord) -> None:
        for note in unmeasured_notes(record):
            self.context.view.message(f"{record.run_id}: {note}")
        self.context.view.finish_run(record)
        self._rebuild_results()
        self.cancelled = record.status is Status.CANCELLED or self.context.should_stop()

    def _rebuild_results(self) -> None:
        """The table after every run; the page with it where the last one is old enough.

        No run waits for them: what cannot be rebuilt now, another process being at it, is rebuilt after a later run.
        """
        started = time.monotonic()
        try:
            if started < self.page_due_at:
                rebuild_table(self.context.store, wait=False)
                return
            build_report(self.context.store, figures=False, wait=False)
        except (BusyError, DiskError) as error:
            if str(error) != self.complaint:
                self.context.view.message(f"table and page are rebuilt later: {error}")
            self.complaint = str(error)
        ended = time.monotonic()
        self.page_due_at = ended + max(_PAGE_SECONDS, (ended - started) / _PAGE_SHARE)

    def _open(self, group: Group, variant: BaseVariant, works: dict[BaseVariant, GroupWork]) -> GroupWork:
        if variant not in works:
            works[variant] = GroupWork(
                shared=self._base(group, variant),
                group=group,
                text_field=self.plan.experiment.text_field,
                base_scores_dir=self.context.store.base_scores_dir,
                progress=self._progress,
            )
        return works[variant]

    def _base(self, group: Group, variant: BaseVariant) -> SharedBase:
        if self.shared is not None and self.shared.variant == variant:
            return self.shared
        if self.shared is not None:
            self.shared.free()
            self.shared = None
        self.context.view.phase(f"loading {group.model.name}")
        self.shared = SharedBase.load(group.model.reference, variant, self.plan.device, self._progress)
        return self.shared

    def _progress(self, description: str, done: float, total: float | None) -> None:
        """Shows how far long work is, and ends it where the user wants to stop: nothing is lost before training."""
        if self.context.should_stop():
            raise CancelledError(f"stopped while {description}")
        self.context.view.progress(description, done, total)


def _may_be_free(lease: Path) -> bool:
    """Whether it is worth trying to take; one that cannot be read is, so that what is in the way gets said."""
    try:
        return is_free(lease)
    except DiskError:
        return True


def _lacks_measurements(run: PlannedRun, record: RunRecord) -> bool:
    """Whether a finished adapter is to be measured."""
    return is_measurable(record) and bool(missing_in(record, run.measures))
