from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from lorabench.core.errors import DataError, DiskError
from lorabench.core.revisions import REMEMBER_FROM_BYTES, file_revision
from lorabench.core.storage import cache_root, read_regular, recall, remember, set_aside, sha256_file, write_atomically


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


def test_a_folder_in_place_of_a_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "record.json" / "inside").mkdir(parents=True)
    write_atomically(tmp_path / "record.json", b"new")
    assert (tmp_path / "record.json").read_bytes() == b"new"
    (aside,) = tmp_path.glob("record.json.damaged-*")
    assert (aside / "inside").is_dir()


def test_a_damaged_memory_is_forgotten(tmp_path: Path) -> None:
    path, values = tmp_path / "memory", {"rate": 1.25e9, "name": "café", "of": [1, None, True]}
    remember(path, values)
    content = path.read_bytes()
    assert recall(path) == values
    generator = random.Random(3)
    for _ in range(500):
        flipped = bytearray(content)
        flipped[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        assert recall(path) in (None, values)
    for content in (b"", b"[]", b"3", b'{"values": 1}', b'{"values": 1, "sha256": []}', b"[" * 200_000, b"\xff"):
        path.write_bytes(content)
        assert recall(path) is None
    assert recall(tmp_path) is None


def test_a_damaged_memory_of_a_hash_is_not_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "large"
    path.write_bytes(os.urandom(REMEMBER_FROM_BYTES))
    digest = file_revision(path)
    (memory,) = (tmp_path / "cache" / "hashes").iterdir()
    memory.write_bytes(memory.read_bytes().replace(digest.encode(), b"0" * 64))
    assert file_revision(path) == digest == sha256_file(path)


def test_a_pipe_a_device_or_a_folder_is_no_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    started = time.monotonic()
    for name in ("pipe", "device", "."):
        with pytest.raises(OSError, match="it is"):
            read_regular(tmp_path / name)
        with pytest.raises(OSError, match="it is"):
            sha256_file(tmp_path / name)
        with pytest.raises(DataError, match="it cannot be read: it is"):
            file_revision(tmp_path / name)
    assert time.monotonic() - started < 5
    write_atomically(tmp_path / "file", b"four")
    with pytest.raises(OSError, match="larger than 3 bytes"):
        read_regular(tmp_path / "file", 3)


@pytest.mark.parametrize("small_disk", ["size=64k"], indirect=True)
def test_a_full_disk_leaves_the_earlier_version_whole(small_disk: Path) -> None:
    path = small_disk / "record.json"
    write_atomically(path, b"earlier")
    with pytest.raises(DiskError, match="No space left on device; free some space"):
        write_atomically(path, b"x" * 1_000_000)
    assert path.read_bytes() == b"earlier"
    assert [entry.name for entry in small_disk.iterdir()] == ["record.json"]
