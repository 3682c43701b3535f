"""Where runs are done: the protocol of executors, each of which is one file in `executors/`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lorabench.core.device import Device
from lorabench.core.errors import ConfigError
from lorabench.core.registry import Registry
from lorabench.runs.task import RunTask, TaskOutcome

if TYPE_CHECKING:
    from lorabench.runs.context import RunContext


class Executor(Protocol):
    """Does tasks: in this process, on several devices, on other machines.

    It may do several at once and end them in any order. Whoever does a task holds its run's lease meanwhile
    (`worker.do_task`). What it takes before the first task, `num_free`, is how many workers it has.
    """

    @property
    def num_free(self) -> int:
        """How many more tasks it takes now; 0 until one of those that it has is over."""

    def submit(self, task: RunTask) -> None:
        """Take a task; returns at once."""

    def next_outcome(self) -> TaskOutcome:
        """Wait until a task that was submitted is over. Called only while there is one.

        Once the user wants to stop (`RunContext.should_stop`), every task comes to its end in good order.
        """

    def stop(self) -> None:
        """Give back what it holds; no more tasks will come."""


ExecutorKind = Callable[["RunContext"], Executor]
"""How one kind of executor is made, from what runs in this process are given; `EXECUTOR` in its file."""


@runtime_checkable
class RemoteKind(Protocol):
    """An ExecutorKind whose runs are done elsewhere: in other processes or on other machines."""

    def at(self, address: str) -> RemoteKind:
        """The same for the cluster at `address`, or for the devices of that name."""

    def find_device(self, name: str | None) -> Device:
        """What runs compute on there; `name` as for `choose_device`. Raises InputError, EnvironmentProblem."""

    def __call__(self, context: RunContext) -> Executor:
        """Make the executor."""


EXECUTORS: Registry[ExecutorKind] = Registry("lorabench.runs.executors", "EXECUTOR", "executor")


def executor_kind(name: str, address: str | None = None) -> ExecutorKind:
    """The kind of that name, for the cluster at `address` where one is given. Raises ConfigError."""
    kind = EXECUTORS.get(name)
    if address is None:
        return kind
    if not isinstance(kind, RemoteKind):
        raise ConfigError(f"--address: the executor {name} does its runs here; give it with --executor ray")
    return kind.at(address)
