"""What the head sends to a node, and what comes back: plain values for any transport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lorabench.runs.cluster.parcels import Parcel
from lorabench.runs.messages import Event

MESSAGES_HELD_BYTES = 256 << 20
"""Of what nodes sent and the head has not taken yet; nodes wait beyond that."""


@dataclass(frozen=True)
class Job:
    """One attempt of a node at a task."""

    key: str
    """Of this attempt alone: what an earlier one still sends is not taken for it."""
    session: str
    """The command on the head."""
    task: str
    """A RunTask as JSON, whose paths of the user's own begin with `.inbox/`."""
    parcels: tuple[Parcel, ...]
    command: tuple[str, ...]
    """As it was typed on the head; goes into the record."""
    code_sha256: str


@dataclass(frozen=True)
class Piece:
    """The next piece of a file of the delivery under way."""

    place: str
    content: bytes


@dataclass(frozen=True)
class Delivery:
    """All pieces of some files have been sent."""

    files: dict[str, str]
    """SHA-256 by place, in the order in which they are to be put in place."""
    is_whole: bool
    """Whether it is all that there is of the run now, rather than a checkpoint on the way."""


@dataclass(frozen=True)
class Letter:
    """What a node says; one of these is given."""

    job: str
    node: str
    event: Event | None = None
    piece: Piece | None = None
    delivery: Delivery | None = None
    size: int = field(init=False, default=0)
    """Bytes that it keeps in memory, about."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 0 if self.piece is None else len(self.piece.content))


@dataclass(frozen=True)
class Claim:
    """The answer to a node that wants what is made once for all: it is there, or to be made, or being made."""

    files: Mapping[str, bytes] | None = None
    """Where it is there."""
    owner: str | None = None
    """The job that makes it, where another one does."""


@dataclass
class Claims:
    """What is made once for all nodes, and which jobs are making some."""

    _made: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)

    def claim(self, name: str, job: str) -> Claim:
        """See Post."""
        if name in self._made:
            return Claim(files=self._made[name])
        owner = self._owners.setdefault(name, job)
        return Claim(owner=None if owner == job else owner)

    def give(self, name: str, files: Mapping[str, bytes]) -> None:
        """See Post."""
        self._owners.pop(name, None)
        self._made[name] = files

    def release(self, job: str) -> None:
        """A job is over or lost: others make what it has not given."""
        self._owners = {name: owner for name, owner in self._owners.items() if owner != job}


class Post(Protocol):
    """A node's way to the head."""

    @property
    def node(self) -> str:
        """What the node is called, as no other is: in records too, so not its host name."""

    def send(self, letter: Letter) -> bool:
        """Hand over a letter, waiting where the head is behind; returns whether the command is to stop."""

    def claim(self, name: str, job: str) -> Claim:
        """Ask for what is made once for all nodes. Raises ConnectionError where the head is gone."""

    def give(self, name: str, files: Mapping[str, bytes]) -> None:
        """Hand over what was claimed, by file name. Raises ConnectionError where the head is gone."""

    def fetch(self, piece: Any) -> bytes:
        """The bytes of a piece of a parcel."""
