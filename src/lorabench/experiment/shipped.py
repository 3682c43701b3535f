"""The experiments and reference results that come with lorabench: in its package, or in `configs` of a working copy."""

from __future__ import annotations

from pathlib import Path

from lorabench.core.errors import EnvironmentProblem, UnknownNameError, near_matches

_PACKAGED = Path(__file__).parent
"""Where the wheel puts them (pyproject.toml)."""
_WORKING_COPY = Path(__file__).parents[3] / "configs"


def shipped_experiments() -> dict[str, Path]:
    """The files by the experiments' names. Raises EnvironmentProblem where there are none."""
    return _files("experiments", "shipped")


def shipped_references() -> dict[str, Path]:
    """The files with results from elsewhere, by name. Raises EnvironmentProblem where there are none."""
    return _files("references", "shipped_references")


def _files(kind: str, packaged: str) -> dict[str, Path]:
    for folder in (_PACKAGED / packaged, _WORKING_COPY / kind):
        if files := sorted(folder.glob("*.yaml")):
            return {file.stem: file for file in files}
    raise EnvironmentProblem(f"{_PACKAGED / packaged}: the {kind} that lorabench ships are missing; install it again")


def find_shipped(name: str) -> Path:
    """The file of one of them. Raises UnknownNameError with near matches."""
    files = shipped_experiments()
    if name not in files:
        raise UnknownNameError(
            f"--from {name[:80]}: lorabench ships no experiment of that name; `lorabench init --list` shows them."
            f"{near_matches(name, files)}"
        )
    return files[name]
