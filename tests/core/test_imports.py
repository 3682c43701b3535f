"""Large libraries are imported without looking for garbage meanwhile, and then it is looked for again."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorabench.core.imports import import_at_once

NOTES = "import gc\nCOLLECTS = gc.isenabled()\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which modules are imported, which are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_looked_for_as_before(own: Path, collects: bool) -> None:
    (own / "noted_at_import.py").write_text(NOTES)
    if not collects:
        gc.disable()
    try:
        import_at_once("noted_at_import")
        assert gc.isenabled() == collects
    finally:
        gc.enable()
    assert sys.modules["noted_at_import"].COLLECTS is False


def test_also_where_the_import_fails(own: Path) -> None:
    (own / "broken_at_import.py").write_text("raise ImportError('a library is missing')\n")
    with pytest.raises(ImportError, match="a library is missing"):
        import_at_once("broken_at_import")
    assert gc.isenabled()
