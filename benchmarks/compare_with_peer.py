"""How fast and how small lorabench trains, next to the usual stack: ratios of medians over alternating runs.

    python benchmarks/compare_with_peer.py --model smollm2-135m-instruct --precision fp32 --rounds 3
    python benchmarks/compare_with_peer.py --model gpt2 --random-weights --contexts 128 512 1024 --batch-sizes 1 2 8

Each round runs the usual stack (`run_peer.py`, or another script with the same options: `--peer`) and `lorabench bench`
once, each in a process of its own, on the same weights. Speed is the median of each process's steps, memory the largest
resident size of the whole process as the operating system counted it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lorabench.models.locate import locate_model
from lorabench.samplepack.stories import write_stories

WIDTHS = ("10.1f", "10.1f", "11.2f", "7.0f", "7.0f", "12.2f")
PEER = Path(__file__).with_name("run_peer.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--random-weights", action="store_true", help="the catalogue's size, no hub needed")
    parser.add_argument("--peer", type=Path, default=PEER)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--ranks", type=int, nargs="+", default=[16])
    parser.add_argument("--contexts", type=int, nargs="+", default=[512])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[2])
    parser.add_argument("--steps", type=int, default=8, help="timed steps; two of warm-up come on top")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        text = Path(temporary) / "text.txt"
        text.write_text("\n\n".join(write_stories(300)), encoding="utf-8")
        if options.random_weights:
            folder = save_random(options.model, Path(temporary) / options.model)
        else:
            folder = locate_model(options.model).folder
        rows = []
        print("rank  context  batch  ours tok/s  peer tok/s  speed ratio  ours MB  peer MB  memory ratio  of the limit")
        for rank, context, batch in itertools.product(options.ranks, options.contexts, options.batch_sizes):
            row = compare(options, folder, text, rank, context, batch)
            rows.append(row)
            numbers = (row[key] for key in ("ours", "peer", "speed_ratio", "our_mb", "peer_mb", "memory_ratio"))
            cells = [f"{number:{width}}" for number, width in zip(numbers, WIDTHS, strict=True)]
            cells.append(f"{row['share_of_limit']:12.0%}")
            print(f"{rank:4}  {context:7}  {batch:5}  {'  '.join(cells)}", flush=True)
    print(json.dumps({"model": options.model, "precision": options.precision, "rows": rows}))


def compare(
    options: argparse.Namespace, folder: Path, text: Path, rank: int, context: int, batch: int
) -> dict[str, Any]:
    """Both programs in turn, `rounds` times."""
    common = [
        *("--model", str(folder), "--precision", options.precision, "--rank", str(rank)),
        *("--context-length", str(context), "--batch-size", str(batch)),
    ]
    peer = [sys.executable, str(options.peer), *common, "--text", str(text), "--steps", str(options.steps + 2)]
    ours = [sys.executable, "-m", "lorabench", "bench", *common, "--steps", str(options.steps), "--json"]
    theirs_run, our_run = [], []
    for _ in range(options.rounds):
        theirs_run.append(run(peer))
        our_run.append(run(ours))
    speed = {name: median(runs, "tokens_per_second") for name, runs in (("ours", our_run), ("peer", theirs_run))}
    memory = {name: median(runs, "process_mb") for name, runs in (("ours", our_run), ("peer", theirs_run))}
    return {
        "rank": rank,
        "context_length": context,
        "batch_size": batch,
        "ours": speed["ours"],
        "peer": speed["peer"],
        "speed_ratio": speed["ours"] / speed["peer"],
        "our_mb": memory["ours"],
        "peer_mb": memory["peer"],
        "memory_ratio": memory["ours"] / memory["peer"],
        "share_of_limit": median(our_run, "share_of_limit"),
        "evaluation_tokens_per_second": median(our_run, "evaluation_tokens_per_second"),
        "rounds": options.rounds,
    }


def run(command: list[str]) -> dict[str, Any]:
    """The last line that the program prints, and the largest resident size of its process."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read().decode(errors='replace')[-2000:]}")
        last = output.read().decode().strip().splitlines()[-1]
    return json.loads(last) | {"process_mb": usage.ru_maxrss / 1024}


def median(runs: list[dict[str, Any]], key: str) -> float:
    """Over rounds."""
    return float(statistics.median(values[key] for values in runs))


def save_random(name: str, folder: Path) -> Path:
    """A folder with the catalogue model's real size, seeded random weights, and a small tokenizer of its family."""
    from lorabench.models.catalog import get_model
    from lorabench.models.planning import plan_model
    from lorabench.models.random_weights import load_random
    from lorabench.samplepack.mini_tokenizers import save_tokenizer, train_tokenizer

    entry = get_model(name)
    base = load_random(plan_model(name), precision="fp32", device="cpu")
    base.model.save_pretrained(folder)
    tokenizer = train_tokenizer(entry.family, write_stories(300), 4096)
    save_tokenizer(tokenizer, entry.family, folder, entry.max_context_length)
    return folder


if __name__ == "__main__":
    main()
