"""Users without a home folder or an entry in passwd: a working default, or one sentence."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorabench.cli.commands.doctor import examine
from lorabench.core import home
from lorabench.core import storage as cache
from lorabench.core.errors import DiskError, InputError
from lorabench.core.home import ensure_home, temporary_home, user_path
from lorabench.core.storage import cache_root
from lorabench.models.planning import plan_model
from tests.marks import require_root


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty temporary folder, no cache named, and no home but what the test sets."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for name in ("LORABENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    cache._default_root.cache_clear()
    yield folder
    cache._default_root.cache_clear()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user has no entry in passwd."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    import pwd

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)


def test_nobody_gets_a_home_of_their_own(
    nobody: None, own_temporary_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_home()
    folder = own_temporary_folder / f"lorabench-{os.getuid()}"
    assert os.environ["HOME"] == str(folder)
    assert os.environ["USER"] == f"uid{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with caplog.at_level(logging.WARNING):
        assert cache_root() == folder / ".cache" / "lorabench"
        assert cache_root() == folder / ".cache" / "lorabench"
    assert [record.getMessage().count("LORABENCH_CACHE names another") for record in caplog.records] == [1]


@pytest.mark.parametrize("value", ["/nonexistent", "relative", "/dev/null"])
def test_a_home_that_is_none_is_replaced(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOME", value)
    ensure_home()
    assert os.environ["HOME"] == str(temporary_home())


def test_a_home_stays_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ensure_home()
    assert os.environ["HOME"] == str(tmp_path)
    assert cache_root() == tmp_path / ".cache" / "lorabench"


def test_a_home_that_can_only_be_read_keeps_what_is_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    ensure_home()
    assert os.environ["HOME"] == str(tmp_path), "logins of other programs lie there"
    assert cache_root().is_relative_to(temporary_home())
    (tmp_path / ".cache" / "lorabench").mkdir(parents=True)
    cache._default_root.cache_clear()
    assert cache_root() == tmp_path / ".cache" / "lorabench", "a cache that somebody filled is used"


@pytest.mark.parametrize("spoil", ["a link", "open to others", "a file", "another's"])
def test_a_folder_that_others_could_write_to_is_not_trusted(
    nobody: None, own_temporary_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    folder = own_temporary_folder / f"lorabench-{os.getuid()}"
    if spoil == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif spoil == "a file":
        folder.write_text("")
    else:
        folder.mkdir(mode=0o700)
        folder.chmod(0o777 if spoil == "open to others" else 0o700)
    if spoil == "another's":
        monkeypatch.setattr(home.os, "getuid", lambda: 12345)
        folder.rename(own_temporary_folder / "lorabench-12345")
    ensure_home()
    assert "HOME" not in os.environ
    with pytest.raises(DiskError, match=r"no home folder.*set HOME or LORABENCH_CACHE") as caught:
        cache_root()
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "named"))
    assert cache_root() == tmp_path / "named"


def test_doctor_says_where_the_cache_would_be(nobody: None) -> None:
    ensure_home()
    found = {finding.name: finding for finding in examine()}
    assert "lorabench-" in str(found["cache"].value)


def test_the_home_of_an_unknown_user_is_one_sentence(nobody: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", "~/cache")
    for use in (cache_root, lambda: user_path("~nobody-here/model"), lambda: plan_model("~nobody-here/model")):
        with pytest.raises(InputError, match=r"~.*: there is no home folder of that name here; give the whole path"):
            use()


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"HOME": "/"}, {"HOME": "/root"}], ids=str)
def test_a_user_whom_the_system_does_not_know(given: dict[str, str]) -> None:
    """`docker run --user 12345`: libraries too find what they look for."""
    require_root("becoming another user")
    code = (  # everything is imported before: the interpreter may lie where only root can read
        "import getpass, os, pwd, lorabench.core.home; "
        "from lorabench.core.storage import cache_root, write_atomically; "
        "os.setgroups([]); os.setgid(12345); os.setuid(12345); lorabench.core.home.ensure_home(); "
        "write_atomically(cache_root() / 'a', b'b'); "
        "print(cache_root(), getpass.getuser(), os.path.expanduser('~'))"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own can be entered by root alone
        Path(folder).chmod(0o777)
        environment = {"PATH": os.environ["PATH"], "TMPDIR": folder, **given}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    own = Path(folder) / "lorabench-12345"
    assert done.stdout.split() == [str(own / ".cache" / "lorabench"), "uid12345", str(own)], done.stderr[-2000:]
