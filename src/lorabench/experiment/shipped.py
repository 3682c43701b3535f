"""The experiments that come with lorabench: in its package, or in `configs/experiments` of a working copy."""

from __future__ import annotations

from pathlib import Path

from lorabench.core.errors import EnvironmentProblem, UnknownNameError, near_matches

_PACKAGED = Path(__file__).parent / "shipped"
"""Where the wheel puts them (pyproject.toml)."""
_WORKING_COPY = Path(__file__).parents[3] / "configs" / "experiments"


def shipped_experiments() -> dict[str, Path]:
    """The files by the experiments' names. Raises EnvironmentProblem where there are none."""
    for folder in (_PACKAGED, _WORKING_COPY):
        if files := sorted(folder.glob("*.yaml")):
            return {file.stem: file for file in files}
    raise EnvironmentProblem(f"{_PACKAGED}: the experiments that lorabench ships are missing; install it again")


def find_shipped(name: str) -> Path:
    """The file of one of them. Raises UnknownNameError with near matches."""
    files = shipped_experiments()
    if name not in files:
        raise UnknownNameError(
            f"--from {name[:80]}: lorabench ships no experiment of that name; `lorabench init --list` shows them."
            f"{near_matches(name, files)}"
        )
    return files[name]
