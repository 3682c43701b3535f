"""Which runs an experiment asked for: OUTPUT/experiments/NAME.json, written by `lorabench run` as it begins.

A later start of an experiment of that name replaces it. Folders of an older lorabench have no such files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from lorabench.core.errors import DiskError
from lorabench.core.storage import read_regular, write_atomically
from lorabench.experiment.reference_results import ReferenceResults
from lorabench.experiment.schema import NAME
from lorabench.records.measured import Facts
from lorabench.records.reading import parse_json, reason_of

FOLDER = "experiments"
MAX_BYTES = 64_000_000
_Text = Annotated[str, Field(max_length=200)]


class Asked(Facts):
    """The runs of one experiment, as it was planned when it last began or grew."""

    name: Annotated[str, Field(pattern=rf"^{NAME}$")]
    started_at: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")]
    is_search: bool
    """Whether some of the runs are not to be done: a search decides on the way which."""
    runs: dict[_Text, _Text]
    """Run id -> the corpus that it trains on."""
    reference: ReferenceResults | None = None
    """Results from elsewhere that are shown beside those of its runs."""
    num_steps: dict[_Text, int] = Field(default_factory=dict)
    """Run id -> about how many steps it takes. Empty in lists of an older lorabench."""


def write_asked(output_dir: Path, asked: Asked) -> None:
    """Raises DiskError."""
    path = output_dir / FOLDER / f"{asked.name}.json"
    write_atomically(path, asked.model_dump_json(indent=1).encode("utf-8", errors="backslashreplace"))


def read_asked(output_dir: Path) -> tuple[list[Asked], list[str]]:
    """By name, and a sentence on each file that cannot be used."""
    found: list[Asked] = []
    problems = []
    for path in sorted((output_dir / FOLDER).glob("[!.]*.json")):
        try:
            found.append(_read(path))
        except DiskError as problem:
            problems.append(str(problem))
    return found, problems


def _read(path: Path) -> Asked:
    again = "lorabench run of that experiment writes it again"
    try:
        asked = Asked.model_validate(parse_json(read_regular(path, MAX_BYTES)))
    except OSError as error:
        raise DiskError(f"{path}: {reason_of(error)}; {again}") from None
    except (ValueError, RecursionError, ValidationError):
        raise DiskError(f"{path}: it is no list of an experiment's runs; {again}") from None
    if asked.name != path.stem:
        raise DiskError(f"{path}: it is the list of {asked.name}; {again}")
    return asked
