"""Commands on an experiment file: `plan` and `run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorabench.cli.options import AsJson, DeviceName, DeviceNames, ExperimentFile, OutputDir, Overrides
from lorabench.core.errors import InputError

if TYPE_CHECKING:
    from lorabench.core.cards import Card
    from lorabench.core.device import Device
    from lorabench.experiment.plan import Plan


def plan(
    experiment: ExperimentFile,
    set_: Overrides = None,
    output_dir: OutputDir = Path("outputs"),
    device: DeviceName = None,
    devices: DeviceNames = None,
    on: Annotated[
        str | None, typer.Option(help="Devices that are not here, such as 8xH100: hours, money, disk.", metavar="CARDS")
    ] = None,
    price: Annotated[float | None, typer.Option(help="With --on: of one device for an hour.", min=0.0)] = None,
    detect: Annotated[
        float | None, typer.Option(help="A difference in bits per byte: what would detect it?", min=1e-6)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show every run an experiment would do, and what of it the output folder already holds; nothing is run."""
    from lorabench.analysis.designs import detections, known_spreads
    from lorabench.cli.views import plan as views
    from lorabench.cli.views.detections import print_detections
    from lorabench.cli.views.elsewhere import print_elsewhere
    from lorabench.cli.views.rows import print_json
    from lorabench.deploy.planning import plan_deployment
    from lorabench.experiment.misfits import find_misfits
    from lorabench.experiment.plan import make_plan
    from lorabench.experiment.schema import load_experiment
    from lorabench.experiment.search_plan import expected_plan, plan_searches
    from lorabench.records.store import RecordStore
    from lorabench.runs.elsewhere import plan_elsewhere
    from lorabench.runs.place import worker_warnings
    from lorabench.runs.remaining import find_remaining, with_recorded_ids

    store = RecordStore(output_dir)
    wanted = load_experiment(experiment, set_ or [])
    count, card, planned_device = _where(on, price, device, devices)
    planned = with_recorded_ids(make_plan(wanted, planned_device), store)
    searches, remaining = plan_searches(planned), find_remaining(planned, store)
    found = detections(planned, known_spreads(planned, store), detect)
    misfits, expected = find_misfits(planned), expected_plan(planned, searches)
    workers, seconds = _with_workers(expected, devices)
    elsewhere = None if card is None else plan_elsewhere(expected, card, count, price)
    shipping = None if wanted.deploy is None else plan_deployment(wanted.deploy, planned)
    if as_json:
        beside = {
            "misfits": [misfit.to_json() for misfit in misfits] or None,
            "search": [search.to_json() for search in searches] or None,
            "remaining": remaining.to_json(),
            "detectable": [detection.to_json() for detection in found],
            "workers": workers or None,
            "workers_seconds": seconds,
            "on": elsewhere and elsewhere.to_json(),
            "deploy": shipping and shipping.to_json(),
        }
        print_json(planned.to_json() | {name: value for name, value in beside.items() if value is not None})
    else:
        views.print_plan(planned, searches)
        views.print_misfits(planned, misfits)
        if elsewhere is not None:
            print_elsewhere(elsewhere, price)
        if seconds is not None:
            views.print_workers(len(workers), seconds, worker_warnings(planned, devices))
        print_detections(found)
        if shipping is not None:
            views.print_deployment_plan(shipping)
        views.print_remaining(remaining, output_dir)


def _with_workers(plan: Plan, devices: str | None) -> tuple[list[str], float | None]:
    """The workers that are asked for, by name, and the seconds that all runs take with them; none where none are."""
    from lorabench.core.worker_devices import parse_devices
    from lorabench.runs.order import seconds_with_workers

    workers = parse_devices(devices) if devices else ()
    return [worker.name for worker in workers], seconds_with_workers(plan, workers) if workers else None


def _where(
    on: str | None, price: float | None, device: str | None, devices: str | None
) -> tuple[int, Card | None, Device]:
    """How many cards elsewhere and which, and the device that runs are planned for.

    Raises InputError for options that contradict one another, or name what there is not.
    """
    from lorabench.core.cards import parse_devices_elsewhere
    from lorabench.runs.place import device_to_plan_for

    if price is not None and on is None:
        raise InputError("--price: it is that of a device hour; say which devices with --on, such as 8xH100")
    if on is not None and (device is not None or devices is not None):
        raise InputError("--on and --device or --devices exclude each other; give one of them")
    if on is None:
        return 0, None, device_to_plan_for(device, devices)
    count, card = parse_devices_elsewhere(on)
    return count, card, card.device


def run(
    experiment: ExperimentFile,
    output_dir: OutputDir = Path("outputs"),
    set_: Overrides = None,
    tracker: Annotated[
        str, typer.Option(help="wandb, trackio, tensorboard, mlflow, several separated by commas, or none.")
    ] = "wandb",
    upload_adapters: Annotated[bool, typer.Option(help="Give each adapter to the tracker as an artifact.")] = False,
    retry: Annotated[str | None, typer.Option(help="failed: do the runs again that did not complete.")] = None,
    checkpoint_seconds: Annotated[float, typer.Option(help="Time between checkpoints.", min=0.0)] = 60.0,
    device: DeviceName = None,
    devices: DeviceNames = None,
    executor: Annotated[
        str, typer.Option(help="Where runs are done: here, ray (a cluster), or an executor of your own.")
    ] = "here",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster, as ray start prints it; default: one on this machine.")
    ] = None,
    side_by_side: Annotated[
        str, typer.Option(help="So many runs in one pass over the base that they share: a number, auto, or off.")
    ] = "off",
) -> None:
    """Do what is missing of an experiment; run it again to go on where it stopped."""
    from lorabench.cli.views.deployment import print_deployments
    from lorabench.cli.views.outcome import print_outcome
    from lorabench.cli.views.view import make_view
    from lorabench.deploy.recommended import run_and_deploy
    from lorabench.experiment.schema import load_experiment
    from lorabench.records.store import RecordStore
    from lorabench.report.build import findings_of

    if retry not in (None, "failed"):
        raise InputError(f"--retry {retry}: unknown state; accepted: failed")
    outcome = run_and_deploy(
        load_experiment(experiment, set_ or []),
        output_dir,
        trackers=[name.strip() for name in tracker.split(",")],
        upload_adapters=upload_adapters,
        retry_failed=retry == "failed",
        checkpoint_seconds=checkpoint_seconds,
        device=device,
        devices=devices,
        executor=executor,
        address=address,
        side_by_side=side_by_side,
        view=make_view(),
    )
    store = RecordStore(output_dir)
    print_outcome(outcome, findings_of(outcome.records, store))
    print_deployments(outcome, store)
    raise typer.Exit(outcome.exit_code)
