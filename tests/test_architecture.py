"""Holds the house together: who may import whom, and what must start without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lorabench

PACKAGE = Path(lorabench.__file__).parent

FOUNDATION = {
    "errors",
    "plain_yaml",
    "config",
    "identity",
    "cache",
    "content",
    "machine",
    "device",
    "home",
    "locks",
    "hub",
    "redaction",
    "formatting",
}
"""Used by every room; use only one another."""

BELOW = {
    "catalog": set(),
    "record": set(),
    "data": {"catalog"},
    "models": {"catalog", "data", "record"},
    "adapters": {"models", "data"},
    "train": {"data", "models", "adapters"},
    "evaluate": {"data", "models", "record"},
    "track": {"record"},
    "analysis": {"record"},
    "report": {"record", "analysis"},
    "terminal": {"record", "analysis"},
    "execute": set(),
    "planning": {"catalog", "data", "models", "adapters", "train", "record"},
    "planning_view": {"planning", "record"},
}
"""Room -> the rooms it may import beside the foundation. `models` stands on `adapters` only for settings' names."""

JOINTS = {"pipeline", "cli", "bench", "doctor", "profile", "__main__", "__init__"}
"""May import anything; nothing below imports them."""


def imports_of(path: Path) -> set[str]:
    """Rooms of lorabench that a module imports at run time (type checking apart)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    checking = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    skipped = {id(inner) for node in checking for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lorabench":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("lorabench.")}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    used = imports_of(path) - {room}
    if room in JOINTS:
        return
    allowed = FOUNDATION if room in FOUNDATION else FOUNDATION | BELOW[room]
    assert used <= allowed, f"{room} may not import {sorted(used - allowed)}"


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module",
    [
        "lorabench",
        "lorabench.cli",
        "lorabench.planning",
        "lorabench.pipeline.remaining",
        "lorabench.report.build",
        "lorabench.record.store",
    ],
)
def test_planning_and_reporting_never_import_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'wandb'}} & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_the_public_names_are_complete() -> None:
    for name in lorabench.__all__:
        assert getattr(lorabench, name) is not None
    public = {name for name, value in vars(lorabench).items() if callable(value) and not name.startswith("_")}
    public -= {"Any", "Path", "Sequence", "import_module"}
    assert public <= set(lorabench.__all__)
    assert (PACKAGE / "py.typed").is_file()
    code = "import lorabench, lorabench.planning, lorabench.pipeline.evaluation; print(callable(lorabench.plan))"
    assert run_python(code) == "True"
    assert callable(lorabench.evaluate)


def test_no_file_holds_unsafe_loading() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "trust_remote_code=True" not in text
        assert "torch.load(" not in text
        assert "pickle.load" not in text
        assert "yaml.unsafe_load" not in text
