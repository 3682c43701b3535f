"""Holds the house together: imports go one way, without circles, and what plans or reports starts without torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lorabench

PACKAGE = Path(lorabench.__file__).parent

ROOMS = (
    "core",
    "samplepack",
    "corpora",
    "tokens",
    "fast",
    "models",
    "methods",
    "experiment",
    "records",
    "training",
    "scoring",
    "trackers",
    "analysis",
    "report",
    "runs",
    "deploy",
    "bench",
    "cli",
)
"""Every room, in an order in which each imports only rooms before it. `docs/architecture.md` draws them."""


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = [PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(name: str) -> set[str]:
    """Modules of the package that a module names: at its top, inside functions, and for type checkers alike."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found - {name}


def room_of(name: str) -> str | None:
    """The room of a module; None for the package's own front (`__init__`, `__main__`)."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else None


def test_every_folder_is_a_room() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ROOMS)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_the_page_lists_the_rooms_in_their_order() -> None:
    page = (PACKAGE.parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"(?m)^\| `(\w+)` \|", page)) == ROOMS


@pytest.mark.parametrize("name", [name for name in MODULES if room_of(name)])
def test_imports_go_one_way(name: str) -> None:
    room = room_of(name)
    assert room is not None
    allowed = {*ROOMS[: ROOMS.index(room) + 1], None}
    upward = {other for other in imports_of(name) - {PACKAGE.name} if room_of(other) not in allowed}
    assert not upward, f"{name} imports {sorted(upward)}, from above its room"


def test_no_two_modules_import_each_other() -> None:
    """Lazy imports and those for type checkers count. The front imports anything, and nothing imports the front."""
    graph = {name: imports_of(name) for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(f"modules import one another: {' -> '.join(circle.args[1])}")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module",
    [
        "lorabench",
        "lorabench.cli.main",
        "lorabench.experiment.plan",
        "lorabench.runs.place",
        "lorabench.runs.remaining",
        "lorabench.report.build",
        "lorabench.records.store",
    ],
)
def test_planning_and_reporting_never_import_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'wandb'}} & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_methods_are_read_without_torch() -> None:
    code = "import sys; from lorabench.methods.registry import METHODS; names = list(METHODS.all()); "
    code += "print(names[:2], len(names), sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    assert run_python(code) == "['adalora', 'bitfit'] 26 []"


def test_the_public_names_are_complete() -> None:
    for name in lorabench.__all__:
        assert getattr(lorabench, name) is not None
    public = {name for name, value in vars(lorabench).items() if callable(value) and not name.startswith("_")}
    public -= {"Any", "Path", "Sequence", "ensure_home"}
    assert public <= set(lorabench.__all__)
    assert (PACKAGE / "py.typed").is_file()
    code = "import lorabench, lorabench.experiment.plan, lorabench.runs.evaluation; print(callable(lorabench.plan))"
    assert run_python(code) == "True"
    assert callable(lorabench.evaluate)


def test_no_file_holds_unsafe_loading() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "trust_remote_code=True" not in text
        assert "torch.load(" not in text
        assert "pickle.load" not in text
        assert "yaml.unsafe_load" not in text
