"""`lorabench export --push` against a hub on this machine, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from lorabench.core.errors import InputError
from lorabench.deploy.push import check_push
from lorabench.records.schema import RunRecord
from tests.hub.server import LocalHub

TOKEN = "hf_" + "w" * 34
Export = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.tokens, server.writers = {TOKEN, "hf_" + "r" * 34}, {TOKEN}
        yield server


@pytest.fixture
def export(finished: RunRecord, hub: LocalHub, tmp_path: Path) -> Export:
    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        surroundings: Mapping[str, str] = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": TOKEN,
            **changes,
        }
        command = [sys.executable, "-m", "lorabench", "export", finished.run_id, "--output-dir", "out"]
        command += ["--to", "exported", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False)

    return run


def test_a_private_repository_with_the_same_files(export: Export, hub: LocalHub, tmp_path: Path) -> None:
    done = export("--push", "us/ours")
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["model", "us/ours"]
    assert repository.private == {TOKEN}
    files = repository.branches["main"]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "exported").iterdir()} | {
        name: content for name, content in files.items() if name == ".gitattributes"
    }
    assert done.stdout.splitlines()[-1] == f"{hub.url}/us/ours"
    for content in files.values():
        assert TOKEN.encode() not in content
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_token_that_may_only_read(export: Export, hub: LocalHub, tmp_path: Path) -> None:
    done = export("--push", "us/ours", HF_TOKEN="hf_" + "r" * 34)
    assert done.returncode == 2
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("lorabench:")]
    assert "does not let this token write to us/ours (403)" in sentence
    assert "lies in exported" in sentence
    assert (tmp_path / "exported" / "README.md").is_file()
    assert ("model", "us/ours") not in hub.repositories


def test_nothing_is_written_without_a_token(export: Export, tmp_path: Path) -> None:
    done = export("--push", "us/ours", HF_TOKEN="")
    assert done.returncode == 2
    assert "set HF_TOKEN" in done.stderr
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("ours", "owner/name"), ("us/ours@main", "owner/name"), ("../ours", "owner/name"), ("us/ours", "HF_HUB_OFFLINE")],
)
def test_what_cannot_be_pushed_to(name: str, reason: str) -> None:
    """The tests themselves are offline."""
    with pytest.raises(InputError, match=reason):
        check_push(name)
