"""Checkpoints that a kill cannot spoil: written beside, synced, renamed, hashed; the two latest are kept.

A checkpoint holds all that the next step depends on: adapter, optimizer, position and random state. The learning rate
and the order of the text follow from the step, so they are not stored. `parameters` are the trainable ones, and beside
them what else of its own an adapter's later steps depend on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lorabench.core.device import random_state, set_random_state
from lorabench.core.errors import DiskError
from lorabench.core.storage import new_folder, read_regular, set_aside, sha256_file

NUM_KEPT = 2
STATE, POSITION, MANIFEST = "state.safetensors", "position.json", "manifest.json"
SCALARS = "scalars"
"""Where numbers of an optimizer's state that are no tensors lie in the file's metadata."""


@dataclass(frozen=True)
class State:
    """What a checkpoint holds, in memory. Its manifest has the hashes of all of it: where that is the same, all is."""

    manifest: bytes
    position: bytes
    """As JSON."""
    values: Mapping[str, Any]
    """Tensors on the processor, and numbers, by name."""
    is_given: bool = True
    """Whether a loop may take the tensors as its own; those of a file are copied: alignment may change a sum."""


def _nothing(manifest: bytes) -> State | None:
    return None


@dataclass(frozen=True)
class Checkpoints:
    """Where a run's checkpoints lie, how often one is written, and which may be taken up."""

    folder: Path
    key: str
    """Names the run and its settings: a checkpoint with another key is not taken up."""
    seconds: float
    """Between two checkpoints, at least."""
    num_recorded_steps: int
    """A checkpoint ahead of so many steps is not taken up: its figures were lost."""
    keep: Callable[[State], None] | None = None
    """Is given what the checkpoint holds with which a call ends; it lies on disk by then."""
    recall: Callable[[bytes], State | None] = _nothing
    """What the checkpoint with this manifest holds, given away; None: it is read from disk."""


@dataclass
class Position:
    """Where a run stands: everything countable. `steps_done` optimizer steps are finished."""

    steps_done: int = 0
    train_tokens: int = 0
    smoothed_loss: float | None = None
    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    evaluation_tokens: int = 0
    step_seconds: list[float] = field(default_factory=list)
    step_tokens: list[int] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    num_resumed: int = 0
    num_skipped_steps: int = 0
    """Whose gradients overflowed in fp16: they left the adapter as it was."""
    loss_scale: dict[str, float] = field(default_factory=dict)
    """State of the scaler in fp16; empty in other precisions."""


def _folder_of(folder: Path, steps_done: int) -> Path:
    return folder / f"step-{steps_done:08d}"


def save_checkpoint(
    folder: Path,
    position: Position,
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    key: str,
    keep: Callable[[State], None] | None = None,
) -> Path:
    """Write `folder/step-<n>` whole or not at all. `key` names the run and settings it belongs to. Raises DiskError.

    `keep` is then given what was written.
    """
    target = _folder_of(folder, position.steps_done)
    tensors, scalars = _values_of(parameters, optimizer, copied=keep is not None)
    text = json.dumps(asdict(position)).encode("ascii")
    with new_folder(target) as temporary:
        save_file(tensors, temporary / STATE, metadata={SCALARS: json.dumps(scalars)})
        (temporary / POSITION).write_bytes(text)
        hashes = {name: sha256_file(temporary / name) for name in (STATE, POSITION)}
        manifest = json.dumps({"key": key, "sha256": hashes, "tensors": sorted(tensors)}).encode("ascii")
        (temporary / MANIFEST).write_bytes(manifest)
    for old in _finished(folder)[:-NUM_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    if keep is not None:
        keep(State(manifest, text, tensors | scalars))
    return target


def _values_of(
    parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, *, copied: bool
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Tensors on the processor and numbers, by the names of a checkpoint; `copied`: none that training writes to."""
    tensors = {
        f"adapter.{name}": parameter.detach().to("cpu", copy=copied).contiguous()
        for name, parameter in parameters.items()
    }
    scalars: dict[str, float] = {}
    seen = set[int]()
    for name, parameter in parameters.items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                shared = value.untyped_storage().data_ptr() in seen  # by several parameters: the file takes none twice
                seen.add(value.untyped_storage().data_ptr())
                tensors[f"optimizer.{entry}.{name}"] = value.detach().to("cpu", copy=copied or shared).contiguous()
            elif value is not None:
                scalars[f"optimizer.{entry}.{name}"] = value
    return tensors | _random_states(parameters), scalars


def load_checkpoint(
    folder: Path,
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    key: str,
    max_steps: int | None = None,
    recall: Callable[[bytes], State | None] = _nothing,
) -> tuple[Position | None, list[str]]:
    """Take up the latest whole checkpoint of at most `max_steps` steps, if any, from memory where `recall` has it.

    Returns its position, and what could not be taken up and was set aside.
    """
    for leftover in [*folder.glob(".writing-*"), *folder.glob(".replaced-*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    problems: list[str] = []
    for path in reversed(_finished(folder)):
        try:
            position, state = _read(path, parameters, key, recall)
            if max_steps is not None and position.steps_done > max_steps:
                raise ValueError(f"metrics.jsonl is whole only up to step {max_steps}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            moved = set_aside(path)
            problems.append(f"{path}: the checkpoint cannot be taken up ({error}); it was set aside as {moved.name}")
        else:
            _take_up(state, parameters, optimizer)
            return position, problems
    return None, problems


def load_step(
    folder: Path,
    steps_done: int,
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    key: str,
) -> Position:
    """Take up the checkpoint that another rank has chosen and found whole. Raises DiskError where it cannot be read."""
    path = _folder_of(folder, steps_done)
    try:
        position, state = _read(path, parameters, key)
    except (OSError, ValueError, KeyError) as error:
        raise DiskError(f"{path}: the checkpoint cannot be read on every device ({error})") from None
    _take_up(state, parameters, optimizer)
    return position


def latest_step(folder: Path) -> int | None:
    """How far the latest checkpoint is, damaged or not; None where there is none."""
    found = _finished(folder)
    return int(found[-1].name[5:]) if found else None


def copy_checkpoint(folder: Path, steps_done: int, target: Path) -> None:
    """Have one in another folder too, whole or not at all. Raises DiskError.

    Its files are never written to again, so they are linked, and copied where the disk knows no links.
    """
    with new_folder(_folder_of(target, steps_done)) as temporary:
        for path in _folder_of(folder, steps_done).iterdir():
            try:
                os.link(path, temporary / path.name)
            except OSError:
                shutil.copyfile(path, temporary / path.name)


def manifest_of(folder: Path) -> bytes | None:
    """Of the latest checkpoint, damaged or not; None where there is none."""
    found = _finished(folder)
    try:
        return read_regular(found[-1] / MANIFEST) if found else None
    except OSError:
        return None


def remove_states(folder: Path, num_kept: int) -> None:
    """Remove all but the latest checkpoints of a folder."""
    found = _finished(folder)
    for path in found[: len(found) - num_kept]:
        shutil.rmtree(path, ignore_errors=True)


def remove_checkpoints(folder: Path) -> None:
    """A finished run needs none; damaged ones that were set aside stay."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if ".damaged-" not in path.name:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _finished(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.name[5:].isdigit())


def _device(parameters: Mapping[str, torch.Tensor]) -> torch.device:
    """Where the parameters lie: dropout draws its random numbers there."""
    return next(iter(parameters.values())).device


def _random_states(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The processor's random state, and that of the GPU where the parameters lie on one."""
    device = _device(parameters)
    own = random_state(device)
    return {"random.cpu": torch.get_rng_state()} | ({} if own is None else {f"random.{device.type}": own})


def _read(
    path: Path, parameters: Mapping[str, torch.Tensor], key: str, recall: Callable[[bytes], State | None] = _nothing
) -> tuple[Position, State]:
    """Position, and what else is there. Everything is read and checked before anything is changed."""
    content = read_regular(path / MANIFEST)
    manifest = json.loads(content)
    if manifest["key"] != key:
        raise ValueError("it belongs to other settings or to another version of lorabench")
    state = recall(content) or _read_state(path, content)
    position = Position(**json.loads(state.position))
    check_values(state, parameters)
    return position, state


def check_values(state: State, parameters: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError where not all is there, or not in the shape of these parameters."""
    _require([*(f"adapter.{name}" for name in parameters), *_random_states(parameters)], state.values)
    for name, parameter in parameters.items():
        if state.values[f"adapter.{name}"].shape != parameter.shape:
            raise ValueError(f"adapter.{name} has another shape")


def read_latest(folder: Path, key: str) -> State | None:
    """The latest checkpoint, where it is whole and has this key."""
    found = _finished(folder)
    try:
        manifest = read_regular(found[-1] / MANIFEST) if found else b"{}"
        return _read_state(found[-1], manifest) if json.loads(manifest).get("key") == key else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _read_state(path: Path, manifest: bytes) -> State:
    """What lies on disk. Raises ValueError where it is not what was written."""
    written = json.loads(manifest)
    for name in (STATE, POSITION):
        if sha256_file(path / name) != written["sha256"][name]:
            raise ValueError(f"{name} does not match its hash")
    tensors = load_file(path / STATE)
    _require(written["tensors"], tensors)
    with safe_open(path / STATE, "pt") as file:
        scalars = json.loads(file.metadata()[SCALARS])
    return State(manifest, read_regular(path / POSITION), tensors | scalars, is_given=False)


def _require(names: Iterable[str], values: Mapping[str, Any]) -> None:
    """Raise ValueError for the first that is not there."""
    for name in names:
        if name not in values:
            raise ValueError(f"{name} is missing")


def _take_up(
    taken: State,
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    saved = taken.values
    names = {parameter: name for name, parameter in parameters.items()}
    in_groups = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    places = {name: index for index, name in enumerate(in_groups)}
    state: dict[int, dict[str, Any]] = {index: {} for index in places.values()}
    for key, value in saved.items():
        kind, entry, name = (*key.split(".", 2), "")[:3]
        if kind == "optimizer":
            state[places[name]][entry] = value
    for name, parameter in parameters.items():
        value = saved[f"adapter.{name}"]
        if taken.is_given and (value.device, value.dtype) == (parameter.device, parameter.dtype):
            parameter.data = value
        else:
            parameter.data.copy_(value)
    with_state = {index: entries for index, entries in state.items() if entries}
    optimizer.load_state_dict({"state": with_state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(saved["random.cpu"])
    device = _device(parameters)
    if device.type != "cpu":
        set_random_state(device, saved[f"random.{device.type}"])
