from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from lorabench.cli.views.live import live_lines
from lorabench.cli.views.view import LiveView, PlainView, make_view
from lorabench.core.progress import Progress
from lorabench.records.schema import Status

from .conftest import MakeRecord

HOSTILE = "[red]x[/red]\x1b[2J\u202e"


def _plain(seconds: float = 10.0, now: list[float] | None = None) -> tuple[PlainView, io.StringIO]:
    stream = io.StringIO()
    clock = (lambda: now[0]) if now is not None else time.monotonic
    return PlainView(Console(file=stream, markup=False, highlight=False), seconds, clock), stream


def test_without_a_terminal_there_are_plain_lines(make_record: MakeRecord) -> None:
    now = [0.0]
    view, stream = _plain(now=now)
    with view:
        view.plan(3, 1)
        view.start_run("run-a", 1, 100)
        view.phase("loading tiny")
        view.phase("training")
        for step in range(1, 101):
            now[0] += 0.5
            view.step(step, 100, 2.0 / step, 800.0)
            if step == 50:
                view.phase("validation")
                view.phase("training")
        view.phase("test")
        view.finish_run(make_record("run-a", 0.9))
    lines = stream.getvalue().splitlines()
    assert lines[:4] == [
        "3 runs, 1 done before and skipped, 2 to do",
        "run 1 of 2, run-a",
        "run 1 of 2, loading tiny",
        "run 1 of 2, training",
    ]
    training = [line for line in lines if "steps" in line]
    assert len(training) == 5
    assert training[0].startswith("run 1 of 2, training, 20/100 steps, loss 0.1000, tokens/s 800")
    assert lines[-1] == "✓ run-a  0.9000 bits/byte (−10.0 % against the base)  812 tokens/s  41 s"
    assert "\x1b" not in stream.getvalue()
    assert sum("validation" in line for line in lines) == 0


def test_a_failed_run_says_why(make_record: MakeRecord) -> None:
    view, stream = _plain()
    view.finish_run(
        make_record(HOSTILE, None, status=Status.OUT_OF_MEMORY, status_reason="no room\nat all", speed=None)
    )
    assert stream.getvalue() == "✗ [red]x[/red]\\x1b[2J\\u202e  out of memory: no room at all\n"


def test_progress_of_a_download_is_said_once_and_then_now_and_then() -> None:
    now = [0.0]
    view, stream = _plain(now=now)
    callback: Progress = view.progress
    for done in range(0, 101, 5):
        callback(f"fetching {HOSTILE}", done, 100)
        now[0] += 2.0
    handle = view.phase("building", total=4, unit="layers")
    now[0] += 11.0
    handle.advance(3, name=HOSTILE)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "fetching [red]x[/red]\\x1b[2J\\u202e"
    assert lines[1] == "fetching [red]x[/red]\\x1b[2J\\u202e, 25%, about 30 s left"
    assert 4 <= len(lines) - 2 <= 6
    assert lines[-1] == "building, 3/4 layers, name [red]x[/red]\\x1b[2J\\u202e"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_live_lines_fit_any_width(width: int, make_record: MakeRecord) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, height=12, markup=False, color_system=None)
    with LiveView(console) as view:
        view.plan(12, 2)
        view.start_run("a-very-long-run-id_" + HOSTILE * 10, 3, 50)
        for step in range(1, 31):
            view.step(step, 50, 1.5, 1234.5)
        rendered = view._render()
        view.finish_run(make_record("r" * 150, 0.9))
    lines = rendered.plain.split("\n")
    assert len(lines) == 3
    assert all(len(line) < width for line in lines)
    assert "training" in rendered.plain
    assert "\x1b[2J" not in stream.getvalue()
    if width >= 80:
        assert "0 of 10 runs, 2 skipped" in lines[0]
        assert "30/50 steps  loss 1.500  tokens/s 1,23" in lines[2]


def test_workers_have_a_line_each_and_one_count(make_record: MakeRecord) -> None:
    view, stream = _plain()
    view.plan(3, 0)
    first, second = view.worker("cpu 0"), view.worker("cpu 1")
    for index, worker in enumerate((first, second), 1):
        worker.start_run(f"run-{index}", index, 10)
        worker.step(3, 10, 2.0, 100.0)
    lines = stream.getvalue().splitlines()
    assert lines[1:3] == ["cpu 0: run 1 of 3, run-1", "cpu 0: run 1 of 3, training"]
    assert lines[3:5] == ["cpu 1: run 2 of 3, run-2", "cpu 1: run 2 of 3, training"]
    assert [line[:2] for line in live_lines(view.state, "", 100).plain.split("\n")[1:]] == ["cp", "cp"]
    view.finish_run(make_record("run-1"))
    assert first.work.run_id is None
    assert second.work.run_id == "run-2"
    assert view.state.num_done == 1
    assert view.worker("cpu 0").work is first.work, "a worker in its place takes its line"


@pytest.mark.parametrize("width", [20, 59, 60, 80, 200])
def test_workers_lines_fit_any_width(width: int) -> None:
    view, _ = _plain()
    view.plan(70, 0)
    for index in range(64):
        worker = view.worker(f"node-{index}:{HOSTILE}")
        worker.start_run(f"a-long-run-id-{index}" * 5, index + 1, 50)
        worker.step(25, 50, 1.5, 1234.5)
    lines = live_lines(view.state, "about 3 min left", width).plain.split("\n")
    assert len(lines) == 65
    assert all(len(line) < width for line in lines)
    assert not any("\x1b" in line for line in lines)
    if width >= 80:
        assert "25/50 steps" in lines[7]
        assert lines[7].startswith("node-6")


def test_a_live_step_costs_little_and_threads_may_talk() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=20)
    with LiveView(console) as view:
        view.start_run("run", 1, 2000)
        talker = threading.Thread(target=lambda: [view.message(f"note {i}") for i in range(50)])
        talker.start()
        started = time.perf_counter()
        for step in range(1, 2001):
            view.step(step, 2000, 1.0, 100.0)
        seconds = time.perf_counter() - started
        talker.join(20)
        assert not talker.is_alive()
    assert seconds / 2000 < 1e-3


@pytest.mark.parametrize("width", [100, 34])
@pytest.mark.parametrize("no_color", [False, True])
def test_a_real_terminal_gets_a_live_view(width: int, no_color: bool) -> None:
    output = _run_in_terminal(_PROGRAM, width, {"NO_COLOR": "1"} if no_color else {})
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert "training" in text
    assert "12/12" in text
    assert "run-one" in text
    assert "a message" in text
    assert re.search(r"\x1b\[\?25l", output), "the cursor is hidden while it draws"
    assert output.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in output.split("12/12")[-1]
    has_colour = re.search(r"\x1b\[[0-9;]*3[1-7]m", output) is not None
    assert has_colour != no_color


def test_a_dumb_terminal_gets_plain_lines() -> None:
    output = _run_in_terminal(_PROGRAM, 80, {"TERM": "dumb"})
    assert "\x1b" not in output
    assert "run 1 of 1, run-one" in output


def test_output_into_a_file_has_no_escapes(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    assert finished.stdout == ""
    assert "\x1b" not in finished.stderr
    assert finished.stderr.splitlines()[1] == "run 1 of 1, run-one"


def test_an_encoding_without_our_signs_is_no_failure() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", "from lorabench.cli.views.text import make_console; make_console().print('✓ é')"],
        capture_output=True,
        env=dict(os.environ) | {"PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert finished.stdout == b"\\u2713 \\xe9\n"


def test_the_view_suits_the_stream() -> None:
    assert isinstance(make_view(io.StringIO()), PlainView)
    assert isinstance(make_view(Console(file=io.StringIO(), force_terminal=True)), LiveView)
    assert isinstance(make_view(Console(file=io.StringIO(), force_terminal=True), plain=True), PlainView)


_PROGRAM = """
import time
from lorabench.cli.views.live import live_lines
from lorabench.cli.views.view import make_view
with make_view() as view:
    view.plan(1, 0)
    view.start_run("run-one", 1, 12)
    for step in range(1, 13):
        view.step(step, 12, 2.0, 100.0)
        time.sleep(0.03)
    view.message("a message")
    time.sleep(0.6)
"""


def _run_in_terminal(program: str, width: int, environment: dict[str, str]) -> str:
    """What a program writes to a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    base = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "CI"}}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=base | {"TERM": "xterm-256color"} | environment,
    )
    os.close(theirs)
    chunks = []
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(ours)
    assert process.wait(30) == 0
    return b"".join(chunks).decode()
