"""What an experiment gives to each of its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lorabench.core.device import Device
from lorabench.records.schema import Environment
from lorabench.records.store import RecordStore
from lorabench.runs.view import RunView
from lorabench.trackers.make import TrackerGroup


@dataclass
class RunContext:
    """What every run of an experiment is given."""

    experiment: str
    question: str
    store: RecordStore
    trackers: TrackerGroup
    view: RunView
    device: Device
    environment: Environment
    should_stop: Callable[[], bool]
    checkpoint_seconds: float
