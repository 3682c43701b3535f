"""Ray: joining a cluster, the mailbox between its nodes and the head, and what a node runs as a Ray task."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lorabench.core.device import Device, choose_device
from lorabench.core.errors import EnvironmentProblem, MissingExtraError
from lorabench.runs.cluster.jobs import MESSAGES_HELD_BYTES, Claim, Claims, Job, Letter
from lorabench.runs.cluster.node import do_job

TAKEN_BYTES = 64 << 20
"""Taken out of the mailbox at once."""
_WAIT_SECONDS = 0.02
_joined: list[bool] = []
"""Whether `join` joined a cluster."""


def join(address: str | None) -> None:
    """Join the cluster at `address`, or start one on this machine; nothing where this process is in one already.

    Raises MissingExtraError where Ray is not installed, EnvironmentProblem where no cluster answers.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("the executor ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a warning, and what comes anyway
    import ray

    if ray.is_initialized():
        return
    with _own_signals():
        try:
            ray.init(
                address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                namespace="lorabench",
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
            where = "on this machine" if address is None else f"at {address}"
            raise EnvironmentProblem(
                f"no Ray cluster could be joined {where} ({' '.join(str(error).split())[:200]}); start one with "
                "ray start --head and give its address"
            ) from None
    _joined.append(True)
    _keep_to_itself()


def leave() -> None:
    """Leave the cluster that `join` has joined."""
    import ray

    if _joined:
        _joined.clear()
        ray.shutdown()


def _keep_to_itself() -> None:
    """Ray prints what daemons of lost nodes wrote last to standard output, which is the command's."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray sets a handler of its own for SIGTERM, which would end the command without a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def num_places(needs: Mapping[str, float]) -> int:
    """How many tasks with these needs (CPU, GPU, memory in bytes) the nodes that are alive take at once."""
    import ray

    total = 0
    for node in ray.nodes():
        if node["Alive"]:
            held = node["Resources"]
            total += int(min(held.get(name, 0.0) // need for name, need in needs.items() if need))
    return total


def largest(resource: str) -> float:
    """The most that one node has of a resource."""
    import ray

    return max((node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)


def describe_node(name: str) -> Device:
    """The device of that name on the node that runs this."""
    return choose_device(name)


class Mailbox:
    """Lies on the head as an actor: holds what nodes send until it is taken, and whether the command is to stop."""

    def __init__(self) -> None:
        self._letters: deque[Letter] = deque()
        self._held = 0
        self._stopping = False
        self._claims = Claims()

    async def send(self, letter: Letter) -> bool:
        """See Post."""
        while self._held > MESSAGES_HELD_BYTES:
            await asyncio.sleep(_WAIT_SECONDS)
        self._letters.append(letter)
        self._held += letter.size
        return self._stopping

    async def take(self) -> list[Letter]:
        """The oldest letters, about `TAKEN_BYTES` of them at most."""
        taken, size = [], 0
        while self._letters and size < TAKEN_BYTES:
            letter = self._letters.popleft()
            taken.append(letter)
            size += letter.size
        self._held -= size
        return taken

    async def claim(self, name: str, job: str) -> Claim:
        """See Post."""
        return self._claims.claim(name, job)

    async def give(self, name: str, files: Mapping[str, bytes]) -> None:
        """See Post."""
        self._claims.give(name, files)

    async def release(self, job: str) -> None:
        """See Claims."""
        self._claims.release(job)

    async def stop(self) -> None:
        """Let every sender know that the command is to stop."""
        self._stopping = True


class RayPost:
    """A Post whose mailbox is an actor, and whose pieces lie in Ray's object store."""

    def __init__(self, mailbox: Any) -> None:
        import ray

        self._mailbox = mailbox
        self.node = f"node-{ray.get_runtime_context().get_node_id()[:8]}"

    def send(self, letter: Letter) -> bool:
        """See Post."""
        return bool(_get(self._mailbox.send.remote(letter)))

    def claim(self, name: str, job: str) -> Claim:
        """See Post."""
        claim: Claim = _get(self._mailbox.claim.remote(name, job))
        return claim

    def give(self, name: str, files: Mapping[str, bytes]) -> None:
        """See Post."""
        _get(self._mailbox.give.remote(name, files))

    def fetch(self, piece: Any) -> bytes:
        """See Post."""
        content: bytes = _get(piece)
        return content


def _get(reference: Any) -> Any:
    """What Ray holds. Raises ConnectionError where the head is gone."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        raise ConnectionError("the head is gone") from error


def do_ray_job(job: Job, mailbox: Any) -> str:
    """A Ray task: see `node.do_job`."""
    return do_job(job, RayPost(mailbox))
