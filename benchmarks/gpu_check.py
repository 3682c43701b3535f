"""What lorabench does on a GPU, within ten minutes: each part prints `ok` or `FAIL`, what it found, a line of JSON.

    bash benchmarks/gpu_check.sh                       # every part, on the first GPU
    bash benchmarks/gpu_check.sh equality speed        # some of them
    bash benchmarks/gpu_check.sh --device cpu --tiny   # the script itself, without a GPU

Each part is a process of its own (`gpu_check_parts.py`), which is ended with all that it started when its time is over.
Those that time nothing run at once. Exit code 1 where a part failed, 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LIMITS = {"environment": 20, "equality": 180, "run": 180, "nf4": 180, "speed": 110, "bench": 160, "peer": 120}
"""Seconds that each part may take on a card. On an H200 the first four took 90 together and `speed` 76; most of it is
compiling, and some 15 for each start of Python.
"""
UNTIMED = ("equality", "run", "nf4")
"""Parts that run side by side: whether they are slow says nothing."""
TINY_PATIENCE = 10
"""Times these limits without a card: the processor may be slow, and busy with something else."""
PARTS = Path(__file__).with_name("gpu_check_parts.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(LIMITS)}; all of them where none is named")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="small models and few steps: tests the script, measures nothing"
    )
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="of each part, in place of its own")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(LIMITS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; accepted: {', '.join(LIMITS)}")
    if options.device != "cpu" and not _has_gpu():
        print("gpu_check: torch finds no GPU here; try --device cpu --tiny to test the script itself", file=sys.stderr)
        return 2
    how = ["--device", options.device, *(["--tiny"] if options.tiny else [])]
    failed = []

    def do(name: str) -> None:
        limit = options.limit or LIMITS[name] * (TINY_PATIENCE if options.tiny else 1)
        if not run_part(name, [sys.executable, str(PARTS), name, *how], limit):
            failed.append(name)

    asked = [name for name in LIMITS if name in (options.parts or LIMITS)]
    for is_untimed, names in itertools.groupby(asked, UNTIMED.__contains__):
        with ThreadPoolExecutor(len(UNTIMED) if is_untimed else 1) as pool:
            list(pool.map(do, names))
    print(f"failed: {', '.join(failed)}" if failed else "every part is ok")
    return int(bool(failed))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def run_part(name: str, command: Sequence[str], limit: float) -> bool:
    """Whether it went well, by the JSON that the command prints last: `problems`, or the reason why it was `skipped`.

    Prints what it found. A part that breaks or hangs does not keep the others from running.
    """
    started = time.perf_counter()
    lines, values = _output(command, limit)
    problems = values.pop("problems")
    seconds = round(time.perf_counter() - started, 1)
    said = [f"     {line}" for line in [*lines, *problems]]
    if reason := values.get("skipped"):
        said.append(f"     skipped: {reason}")
    said.append(f"{'FAIL' if problems else 'ok  '} {name} ({seconds} s)")
    answer = {"part": name, "ok": not problems, "seconds": seconds, **({"problems": problems} if problems else {})}
    print("\n".join([*said, json.dumps(answer | values)]), flush=True)
    return not problems


def _output(command: Sequence[str], limit: float) -> tuple[list[str], dict[str, Any]]:
    """What a part prints for people, and its values."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True)
        problem = ""
        try:
            if process.wait(limit):
                problem = f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            problem = f"it took longer than {limit:g} seconds and was ended"
        finally:
            _end(process)
        output.seek(0)
        errors.seek(0)
        lines, complaint = output.read().splitlines(), " ".join(errors.read().split())[-300:]
    if problem:
        return lines, {"problems": [f"{problem}: {complaint}" if complaint else problem]}
    try:
        return lines[:-1], json.loads(lines[-1])
    except (IndexError, ValueError):
        return lines, {"problems": ["it said nothing"]}


def _end(process: subprocess.Popen[bytes]) -> None:
    """The part and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    sys.exit(main())
