"""The script that installs the browser: what it says where it cannot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "install_browser.sh"


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    bash = shutil.which("bash")
    assert bash
    return subprocess.run([bash, str(SCRIPT), *arguments], env={"PATH": str(path)}, capture_output=True, text=True)


def commands(folder: Path, **scripts: str) -> Path:
    """A folder of commands, and nothing else, on the PATH."""
    folder.mkdir()
    for name in ("cat", "chmod", "env", "mktemp", "rm"):
        real = shutil.which(name)
        assert real
        (folder / name).symlink_to(real)
    for name, text in scripts.items():
        (folder / name.replace("_", "-")).write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
        (folder / name.replace("_", "-")).chmod(0o755)
    return folder


def test_it_does_nothing_where_there_is_one(tmp_path: Path) -> None:
    done = run(commands(tmp_path / "bin", chromium="exit 0", apt_get="exit 9"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_says_in_one_sentence_why_it_cannot(tmp_path: Path) -> None:
    without = run(commands(tmp_path / "no-apt"))
    assert without.returncode == 1
    assert "there is no apt-get here" in without.stderr
    assert without.stderr.count("\n") == 1
    user = run(commands(tmp_path / "user", apt_get="exit 0", id="echo 1000"))
    assert user.returncode == 1
    assert "needs root" in user.stderr
    failing = run(commands(tmp_path / "failing", apt_get="echo no such package; exit 100", id="echo 0"))
    assert failing.returncode == 1
    assert failing.stderr.startswith("no such package\n")
    assert "apt-get could not install chromium" in failing.stderr


def test_it_updates_the_lists_when_they_are_too_old(tmp_path: Path) -> None:
    updated = tmp_path / "updated"
    chromium = tmp_path / "bin" / "chromium"
    install = f"[ -f {updated} ] && echo > {chromium} && chmod +x {chromium}"
    apt = f'case "$1" in update) echo > {updated};; install) {install};; esac'
    done = run(commands(tmp_path / "bin", apt_get=apt, id="echo 0"))
    assert updated.exists()
    assert done.returncode == 0, done.stderr
    assert f"Installed: {chromium}" in done.stdout


def test_it_explains_itself(tmp_path: Path) -> None:
    path = commands(tmp_path / "bin")
    assert "usage:" in run(path, "--help").stdout
    assert run(path, "--frobnicate").returncode == 2
