"""What an experiment gives to each of its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lorabench.device import Device
from lorabench.record.schema import Environment
from lorabench.record.store import RecordStore
from lorabench.terminal import ProgressView
from lorabench.track.make import TrackerGroup


@dataclass
class RunContext:
    """What every run of an experiment is given."""

    experiment: str
    question: str
    store: RecordStore
    trackers: TrackerGroup
    view: ProgressView
    device: Device
    environment: Environment
    should_stop: Callable[[], bool]
    checkpoint_seconds: float
