from __future__ import annotations

from pathlib import Path

import pytest

from lorabench.cache import cache_root, set_aside, write_atomically
from lorabench.errors import DiskError


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here"
    monkeypatch.delenv("LORABENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert cache_root() == tmp_path / "there" / "lorabench"


def test_a_write_is_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_damage_is_set_aside_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(b"bad")
    moved = set_aside(path)
    assert not path.exists()
    assert moved.name.startswith("record.json.damaged-")
    assert moved.read_bytes() == b"bad"


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_a_full_disk_leaves_the_earlier_version_whole(small_disk: Path) -> None:
    path = small_disk / "record.json"
    write_atomically(path, b"earlier")
    with pytest.raises(DiskError, match="No space left on device; free some space"):
        write_atomically(path, b"x" * 1_000_000)
    assert path.read_bytes() == b"earlier"
    assert [entry.name for entry in small_disk.iterdir()] == ["record.json"]
