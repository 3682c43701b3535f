"""Kinds of a thing: found in a package's files, in installed plugins, and where code adds them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lorabench.core.errors import ConfigError
from lorabench.core.registry import Registry


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[int]:
    package = tmp_path / "shapes"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "square.py").write_text("SIDES = 4\n")
    (package / "triangle.py").write_text("SIDES = 3\n")
    (package / "helper.py").write_text("OTHER = 1\n")
    plugin = tmp_path / "plugin-1.0.dist-info"
    plugin.mkdir()
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (plugin / "entry_points.txt").write_text("[shapes]\npentagon = plugin_shapes:SIDES\n")
    (tmp_path / "plugin_shapes.py").write_text("SIDES = 5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] in ("shapes", "plugin_shapes")]:
        monkeypatch.delitem(sys.modules, name)
    return Registry("shapes", "SIDES", "shape")


def test_files_plugins_and_what_is_added(registry: Registry[int]) -> None:
    registry.add("hexagon", 6)
    assert registry.all() == {"square": 4, "triangle": 3, "pentagon": 5, "hexagon": 6}
    assert [registry.get(name) for name in ("triangle", "pentagon", "hexagon")] == [3, 5, 6]
    registry.remove("hexagon")
    assert "hexagon" not in registry.all()


def test_unknown_and_taken_names_are_told(registry: Registry[int]) -> None:
    with pytest.raises(ConfigError, match=r"there is no shape 'sqare'; accepted: square.*n\. Did you mean 'square'"):
        registry.get("sqare")
    with pytest.raises(ConfigError, match="shape 'square' exists already"):
        registry.add("square", 9)


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, lorabench.trackers.make; print([name for name in sys.modules if 'trackers.kinds' in name])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
