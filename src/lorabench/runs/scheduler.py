"""Runs an experiment: what is missing of it, as a strategy asks for it, each run recorded as soon as it ends."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence, Set
from contextlib import suppress
from pathlib import Path

from lorabench.core.errors import DiskError, RunError
from lorabench.core.locks import is_free, lock_owner
from lorabench.core.machine import prepare_process
from lorabench.experiment.estimates import remember_speed
from lorabench.experiment.plan import Plan, make_plan
from lorabench.experiment.schema import Experiment
from lorabench.records.asked import write_asked
from lorabench.records.measurements import missing_in
from lorabench.records.provenance import command_line, describe_environment
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import DamagedRecordError, RecordProblem, RecordStore
from lorabench.runs.around import asked_by, begin, check_needs, check_run_options, make_folders
from lorabench.runs.context import RunContext
from lorabench.runs.decision import Deciding
from lorabench.runs.executor import ExecutorKind
from lorabench.runs.growing import Growing, with_proposal
from lorabench.runs.leases import SILENCE_SECONDS, Watch, lease_path, try_lease
from lorabench.runs.measuring import unmeasured_notes
from lorabench.runs.needs import Need, find_need, lacks_measurements
from lorabench.runs.outcome import Counts, Outcome
from lorabench.runs.place import choose_place, parse_side_by_side
from lorabench.runs.remaining import measuring_seconds, with_recorded_ids
from lorabench.runs.reporting import reported
from lorabench.runs.requests import Requests
from lorabench.runs.results import Results
from lorabench.runs.searching import strategy_of
from lorabench.runs.stopping import stop_in_good_order
from lorabench.runs.strategy import Request, Standing, Strategy, StrategyKind
from lorabench.runs.task import RunOptions, TaskOutcome, TaskState, make_tasks
from lorabench.runs.view import RunView
from lorabench.trackers.make import make_trackers, parse_tracker_names
from lorabench.training.checkpoints import remove_checkpoints

_POLL_SECONDS = 1.0
_STOPPING = "Stopping as soon as nothing is lost by it; Ctrl-C again stops at once"


def run_experiment(
    experiment: Experiment,
    output_dir: Path | str = "outputs",
    *,
    trackers: Sequence[str] = ("wandb",),
    upload_adapters: bool = False,
    retry_failed: bool = False,
    checkpoint_seconds: float = 60.0,
    device: str | None = None,
    devices: str | None = None,
    strategy: str = "matrix",
    executor: str = "here",
    address: str | None = None,
    side_by_side: str | int = "off",
    view: RunView,
) -> Outcome:
    """Do what is missing of the experiment and rebuild the results.

    Finished runs are never done again, failed ones only with `retry_failed`, cancelled ones are taken up where they
    stopped. Finished adapters are measured where more is asked for than their records hold. `devices` has a worker on
    each. `side_by_side` runs train in one pass over their base: a number, `auto` (as many as pay, measured) or `off`.
    `strategy` and `executor` are names of files in `runs/strategies` and `runs/executors`, or of what was added;
    `address` is that of the cluster where runs are done. Raises InputError before anything is done, EnvironmentProblem
    where the machine cannot go on.
    """
    check_run_options(output_dir, checkpoint_seconds)
    num_at_once = parse_side_by_side(side_by_side, is_here=devices is None and executor == "here")
    store = RecordStore(Path(output_dir))
    make_executor, planned_device = choose_place(device, devices, executor, address)
    prepare_process()
    plan = with_recorded_ids(make_plan(experiment, planned_device), store)
    make_strategy = strategy_of(plan.experiment, strategy, store)
    check_needs(plan, is_worker=devices is not None or executor != "here")
    tracker_group = make_trackers(trackers, store.output_dir, upload_adapters=upload_adapters)
    make_folders(store)
    options = RunOptions(
        output_dir=store.output_dir.absolute(),
        device=str(plan.device),
        checkpoint_seconds=checkpoint_seconds,
        trackers=parse_tracker_names(trackers),
        upload_adapters=upload_adapters,
    )
    with tracker_group:
        with (
            view as shown,
            stop_in_good_order(lambda: shown.message(_STOPPING)) as should_stop,
        ):
            context = RunContext(
                store=store,
                trackers=tracker_group,
                view=shown,
                device=plan.device,
                environment=describe_environment(plan.device, command_line()),
                should_stop=should_stop,
                side_by_side=num_at_once,
            )
            begin(context, plan, devices)
            outcome = Scheduler(context, plan, options, make_strategy, make_executor).run(retry_failed=retry_failed)
        return reported(outcome, plan, store, tracker_group)


class Scheduler:
    """Hands missing runs to an executor as a strategy asks for them, and waits for those that other processes hold."""

    def __init__(
        self, context: RunContext, plan: Plan, options: RunOptions, strategy: StrategyKind, executor: ExecutorKind
    ) -> None:
        self.context = context
        self.plan = plan
        self.options = options
        self.tasks = make_tasks(plan, options)
        self.make_strategy = strategy
        self.retry_failed = False
        self.executor = executor(context)
        self.planned = {run.run_id: (group, run) for group in plan.groups for run in group.runs}
        self.results = Results(context.store, context.view.message, plan.experiment.name)
        self.needs: dict[str, Need] = {}
        """Of every run, when this process began; without those that are left alone."""
        self.left_alone: set[str] = set()
        """Runs whose record or lease cannot be used though it is not damaged."""
        self.stopped: set[str] = set()
        """Runs that were stopped early before: a search may go on with them."""
        self.tried: set[str] = set()
        """Runs that this process brought to an end, or measured."""
        self.paused: set[str] = set()
        self.asked: set[str] = set()
        """Runs that the strategy has asked for."""
        self.under_way: dict[str, Request] = {}
        """What the executor is doing, by run id."""
        self.held: list[Request] = []
        """What was asked for of runs that other processes hold."""
        self.expected: dict[str, float] = {}
        """About how long each run takes that this process may do."""
        self.to_measure: list[Request] = []
        """Finished runs of a search, which are measured before anything else."""
        self.cancelled = False
        search = plan.experiment.search
        self.is_search = search is not None and search.leaves_runs_out
        """Whether some of the planned runs are not to be done."""

    def run(self, *, retry_failed: bool = False) -> Outcome:
        """Do every missing run that the strategy asks for, and then wait for those that others are doing."""
        self.retry_failed = retry_failed
        self._look_at(self.tasks)
        strategy = self.make_strategy([run for run in self.plan.runs if run.run_id in self.needs])
        self._tell_recorded(strategy, self.tasks)
        self._grow(strategy)
        self._remove_old_checkpoints()
        self._announce(strategy)
        if self.expected:
            try:
                self._work(strategy)
            finally:
                self.executor.stop()
        return self._outcome(self.expected.keys())

    def _tell_recorded(self, strategy: Strategy, run_ids: Collection[str]) -> None:
        """What of the runs has ended before."""
        for record in self._records():
            if record.run_id not in run_ids:
                continue
            if record.run_id not in self.expected:
                strategy.tell(Standing.of_record(record))
            elif self.is_search and self.needs[record.run_id] is Need.MEASURE:
                strategy.tell(Standing.of_record(record))
                self.to_measure.append(Request(record.run_id))

    def _grow(self, strategy: Strategy) -> None:
        """Plan what the strategy proposes; of what has ended before it is told, and so may propose more."""
        while isinstance(strategy, Growing) and (proposals := strategy.proposals()):
            planned = []
            for proposal in proposals:
                self.plan, runs = with_proposal(self.plan, proposal)
                planned.append((proposal, runs))
            tasks = make_tasks(self.plan, self.options)
            proposed = dict.fromkeys(run.run_id for _, runs in planned for run in runs)
            new = [run_id for run_id in proposed if run_id not in self.tasks]
            self.tasks |= {run_id: tasks[run_id] for run_id in new}
            self.planned = {run.run_id: (group, run) for group in self.plan.groups for run in group.runs}
            self._look_at(new)
            for proposal, runs in planned:
                strategy.add(proposal, [run for run in runs if run.run_id in self.needs])
            self._tell_recorded(strategy, new)
            write_asked(self.context.store.output_dir, asked_by(self.plan))

    def _make_room(self, run_ids: Collection[str]) -> None:
        """Set aside what lies where folders and leases belong."""
        for run_id in run_ids:
            try:
                sentences = self.context.store.make_room(run_id)
            except DiskError as problem:
                self._leave_alone(run_id, str(problem))
                continue
            for sentence in sentences:
                self.context.view.message(sentence)

    def _leave_alone(self, run_id: str, problem: str) -> None:
        """Name what is in the way, once; the other runs go on."""
        if run_id not in self.left_alone:
            self.context.view.message(f"{problem}; the run is left alone")
        self.left_alone.add(run_id)

    def _look_at(self, run_ids: Collection[str]) -> None:
        """Find out what is to be done of runs. What fails from now on is not tried again by this process."""
        self._make_room(run_ids)
        for run_id in run_ids:
            self._find_need(run_id)
        wanted = {run_id for run_id in run_ids if self.needs.get(run_id) in (Need.RUN, Need.MEASURE)}
        self.expected |= self._expected_seconds(wanted)

    def _find_need(self, run_id: str) -> None:
        if run_id in self.left_alone:
            return
        try:
            record = self.context.store.read(run_id)
        except DamagedRecordError:
            record = None
        except RecordProblem as problem:  # not ours to replace: the other runs go on
            self._leave_alone(run_id, str(problem))
            return
        if record is not None and record.status is Status.STOPPED_EARLY:
            self.stopped.add(run_id)
        if record is not None and self.retry_failed:
            self.tasks[run_id] = self.tasks[run_id].model_copy(update={"num_attempts_to_repeat": record.attempt})
        self.needs[run_id] = find_need(self.context.store, self.tasks[run_id])

    def _with_need(self, *needs: Need) -> set[str]:
        return {run_id for run_id, need in self.needs.items() if need in needs}

    def _remove_old_checkpoints(self) -> None:
        """Of runs that were killed after their record was written."""
        for run_id in self._with_need(Need.MEASURE, Need.NOTHING) - self.stopped:
            folder = self.context.store.checkpoints_dir(run_id)
            if folder.is_dir():
                with suppress(DiskError), try_lease(lease_path(self.context.store, run_id)) as mine:
                    if mine:
                        remove_checkpoints(folder)

    def _announce(self, strategy: Strategy) -> None:
        """Tell the user how much there is to do, and how long it will take."""
        num_runs = len(self.needs) + (strategy.num_to_come if isinstance(strategy, Growing) else 0)
        num_done = len(self.needs) - len(self.expected)
        num_left_failed, finished = len(self._with_need(Need.LEFT_FAILED)), self._with_need(Need.MEASURE)
        self.context.view.plan(num_runs, num_done, self.expected, num_left_failed)
        if finished:
            self.context.view.message(
                f"{len(finished)} of them finished before: their adapters are measured, not trained again"
            )

    def _expected_seconds(self, wanted: Set[str]) -> dict[str, float]:
        """About how long each wanted run takes; a finished one is only measured."""
        expected = {run_id: self.planned[run_id][1].estimated_seconds for run_id in wanted}
        for run_id in wanted & self._with_need(Need.MEASURE):
            group, run = self.planned[run_id]
            missing = missing_in(self.context.store.get(run_id), run.measures)
            expected[run_id] = measuring_seconds(group, run, missing, self.plan.device)
        return expected

    def _work(self, strategy: Strategy) -> None:
        """Keep the executor busy until the strategy asks for nothing more, and then wait for what is under way."""
        requests = Requests(strategy, self.tasks, self.expected, self.executor.num_free)
        requests.put_back(self.to_measure)
        if not isinstance(strategy, Deciding):
            self.results.races(())  # those of another search of this name
        self.results.rebuild()
        last = None
        while True:
            while not self.cancelled and self.executor.num_free and (request := requests.next(last, [*self.under_way])):
                self._submit(request)
                last = None
            if isinstance(strategy, Deciding):
                while strategy.decided:
                    self.context.view.decided(strategy.decided.pop(0))
                races = strategy.races()
                self.context.view.races(races)
                self.results.races(races)
            if self.under_way:
                outcome = self.executor.next_outcome()
                if (standing := self._take(outcome)) is not None:
                    strategy.tell(standing)
                    self._grow(strategy)
                last = outcome.run_id
                self.cancelled |= self.context.should_stop()
            elif self.held and not self.cancelled:
                requests.put_back(self._wait())
            else:
                return

    def _submit(self, request: Request) -> None:
        if request.stop_reason is not None and request.run_id not in self.paused:
            raise RunError(f"{request.run_id}: the strategy stops the run early, but it has not paused")
        self.under_way[request.run_id] = request
        self.asked.add(request.run_id)
        update = {
            "until_share": request.until_share,
            "rung_share": request.rung_share,
            "stop_reason": request.stop_reason,
            "goes_past_stop": request.stop_reason is None,
        }
        self.executor.submit(self.tasks[request.run_id].model_copy(update=update))

    def _take(self, outcome: TaskOutcome) -> Standing | None:
        """See what became of a task; returns what the strategy is to know."""
        request, record = self.under_way.pop(outcome.run_id), outcome.record
        if outcome.state is TaskState.HELD:
            self.held.append(request)
            return None
        if outcome.state is TaskState.LEFT_ALONE:
            self._leave_alone(outcome.run_id, outcome.problem)
            return None
        if outcome.state is TaskState.STOPPED:
            return None
        if outcome.state is TaskState.PAUSED:
            self.paused.add(outcome.run_id)
            self.results.rebuild()
            return Standing.of_pause(outcome)
        if record is None:
            return Standing.of_record(self.context.store.get(outcome.run_id))
        self.tried.add(record.run_id)
        self._show(record)
        self.cancelled |= record.status is Status.CANCELLED
        shares_cores = record.environment.worker and not self.plan.device.is_gpu  # no measure of the whole machine
        if outcome.state is TaskState.DONE and record.status is Status.COMPLETED and record.speed and not shares_cores:
            group, run = self.planned[record.run_id]
            rates = record.speed.tokens_per_second, record.speed.evaluation_tokens_per_second
            remember_speed(group.model.shape, run.workload, *rates, self.plan.device)
        return Standing.of_record(record)

    def _show(self, record: RunRecord) -> None:
        for note in unmeasured_notes(record):
            self.context.view.message(f"{record.run_id}: {note}")
        self.context.view.finish_run(record)
        self.results.rebuild()

    def _wait(self) -> list[Request]:
        """Until one of the runs that other processes hold is free, or the user has had enough; what to try again."""
        paths = {request.run_id: lease_path(self.context.store, request.run_id) for request in self.held}
        first, path = next(iter(paths.items()))
        watch, told = Watch(path), False
        runs = "a run" if len(paths) == 1 else f"{len(paths)} runs"
        self.context.view.phase(f"waiting for {runs} that {lock_owner(path)} is doing")
        while not any(map(_may_be_free, paths.values())):
            if self.context.should_stop():
                self.cancelled = True
                return []
            if not told and watch.silent_seconds() > SILENCE_SECONDS:
                self.context.view.message(
                    f"{lock_owner(path)} holds {first} and gives no sign of life; if it was stopped, let "
                    "it go on or end it, and the run is taken over"
                )
                told = True
            time.sleep(_POLL_SECONDS)
        again, self.held = self.held, []
        return again

    def _records(self) -> list[RunRecord]:
        """Of the experiment's runs, by run id."""
        return [record for record in self.context.store.read_all()[0] if record.run_id in self.tasks]

    def _outcome(self, wanted: Collection[str]) -> Outcome:
        records = {record.run_id: record for record in self._records()}
        finished_before = self._with_need(Need.MEASURE)
        run_ids = [run_id for run_id in self.tasks if not self.is_search or run_id in records or run_id in self.asked]
        skipped = {run_id for run_id in run_ids if run_id not in wanted}
        return Outcome(
            records=[records[run_id] for run_id in sorted(records)],
            num_runs=len(run_ids),
            num_skipped=len(skipped),
            num_unmeasured=sum(lacks_measurements(self.tasks[run_id], record) for run_id, record in records.items()),
            counts=Counts.of(
                run_ids,
                records,
                tried=self.tried - finished_before,
                skipped=skipped | finished_before,
            ),
            cancelled=self.cancelled,
        )


def _may_be_free(lease: Path) -> bool:
    """Whether it is worth trying to take; one that cannot be read is, so that what is in the way gets said."""
    try:
        return is_free(lease)
    except DiskError:
        return True
