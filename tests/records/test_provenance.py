"""Which code a checkpoint and a record are tied to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import lorabench
from lorabench.records.provenance import NUMBER_ROOMS, code_sha256, number_files

PACKAGE = Path(lorabench.__file__).parent
OTHER_ROOMS = {"analysis", "bench", "cli", "deploy", "records", "report", "trackers"}
"""Folders that make no number of a run: results read, shown, logged, taken away, or measures of the machine."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PACKAGE, tmp_path / "lorabench", ignore=ignored))


def test_every_room_is_there_and_every_folder_is_one_or_the_other() -> None:
    for room in NUMBER_ROOMS:
        assert (PACKAGE / room).is_dir() or (PACKAGE / room).is_file(), room
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {room.split("/")[0] for room in NUMBER_ROOMS} | OTHER_ROOMS


def test_all_of_the_native_code_is_among_it() -> None:
    native = {path for suffix in ("*.cpp", "*.h", "*.hpp") for path in PACKAGE.rglob(suffix)}
    assert {path.name for path in native} >= {"kernels.cpp", "attention.cpp", "products.cpp"}
    assert native <= set(number_files(PACKAGE))


@pytest.mark.parametrize(
    "changed", ["report/page.py", "cli/views/view.py", "trackers/kinds/wandb.py", "cli/main.py", "core/formatting.py"]
)
def test_what_shows_results_can_be_edited_between_a_kill_and_the_next_start(copy: Path, changed: str) -> None:
    before = code_sha256(copy)
    assert before == code_sha256(PACKAGE)
    (copy / changed).write_text((copy / changed).read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    assert code_sha256(copy) == before


@pytest.mark.parametrize(
    "pattern", ["kernels.cpp", "*.hpp", "packing.py", "loop.py", "tokenizer.py", "attach.py", "schema.py"]
)
def test_what_makes_numbers_cannot(copy: Path, pattern: str) -> None:
    before = code_sha256(copy)
    (changed,) = sorted(copy.rglob(pattern))[:1]
    changed.write_text(changed.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert code_sha256(copy) != before
