"""Memory that a process may have: of the machine, and of every control group around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorabench.core import machine
from lorabench.core.machine import ControlGroup, available_memory_bytes, control_groups, memory_bytes

GIB = 1 << 30


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n", encoding="ascii")


def test_the_smallest_of_nested_groups_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    proc.write_text("0::/machine.slice/job/worker\n", encoding="ascii")
    group(root, memory__current=9 * GIB, memory__stat="anon 1")  # the root of version 2 has no limit
    group(root / "machine.slice", memory__max=GIB, memory__current=GIB // 2, memory__stat=f"inactive_file {GIB // 4}")
    group(root / "machine.slice/job", memory__max="max", memory__current=1)
    group(root / "machine.slice/job/worker", memory__max=4 * GIB, memory__current=2, memory__stat="inactive_file 1")
    group(root / "other", memory__max=5, memory__current=1)
    found = control_groups(proc, root)
    assert found == [ControlGroup(4 * GIB, 1), ControlGroup(GIB, GIB // 4)]
    monkeypatch.setattr(machine, "control_groups", lambda: found)
    monkeypatch.setattr(machine, "memory_bytes", memory_bytes.__wrapped__)
    assert machine.memory_bytes() == GIB
    own = available_memory_bytes() - (GIB - GIB // 4)
    assert available_memory_bytes() == GIB or 0 < own < GIB // 4, "what this process holds counts as there for it"


def test_version_1_and_its_container(tmp_path: Path) -> None:
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    proc.write_text("12:cpu,cpuacct:/x\n5:memory:/docker/abc\n1:name=systemd:/x\n", encoding="ascii")
    files = {"memory__usage_in_bytes": 7, "memory__stat": "total_inactive_file 3"}
    group(root / "memory", memory__limit_in_bytes=100, **files)  # inside a container its own group is the top one
    assert control_groups(proc, root) == [ControlGroup(100, 4)]
    group(root / "memory/docker/abc", memory__limit_in_bytes=50, **files)
    assert control_groups(proc, root) == [ControlGroup(50, 4), ControlGroup(100, 4)]


@pytest.mark.parametrize("content", ["", "nonsense", "0::/../../outside", "0::"])
def test_groups_that_cannot_be_read_limit_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "cgroup").write_text(content, encoding="ascii")
    assert control_groups(tmp_path / "cgroup", tmp_path / "fs") == []
    assert control_groups(tmp_path / "missing", tmp_path / "fs") == []


def test_this_machine() -> None:
    assert 0 < available_memory_bytes() <= memory_bytes()
