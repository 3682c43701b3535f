"""How fast we score text, next to EleutherAI's lm-evaluation-harness: same file, same model, float32, batch of 4.

    python benchmarks/compare_with_harness.py --corpus news --bytes 40000 --rounds 3

Each round scores the file once with the harness and once with lorabench, each in a process of its own that has the
model loaded and has scored two documents before. The clock runs from texts to log-likelihoods. Processes alternate, and
the one that waits is stopped. Medians over rounds. The last line is JSON; its `processor_ratio` compares processor time
instead of time on the clock, which is the one to trust on a machine with other work.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lorabench.corpora.drawing import draw
from lorabench.corpora.store import load_corpus
from lorabench.models.locate import locate_model
from lorabench.tokens.tokenizer import Tokeniser

HERE = Path(__file__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--corpus", default="news")
    parser.add_argument("--bytes", type=int, default=40_000)
    parser.add_argument("--context-length", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    folder = locate_model(options.model).folder
    documents = draw(load_corpus(options.corpus, max_train_bytes=None).splits["validation"], options.bytes).pieces
    tokens = Tokeniser(folder).encode(documents)
    num_tokens = sum(map(len, tokens))
    longest = max(map(len, tokens))
    print(f"{len(documents)} documents, {num_tokens:,} tokens, the longest of {longest:,}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / name for name in ("warm_up.jsonl", "text.jsonl")]
        for path, chosen in zip(files, (documents[:2], documents), strict=True):
            lines = [json.dumps({"text": document.text}) + "\n" for document in chosen]
            path.write_text("".join(lines), encoding="utf-8")
        request = {"model": str(folder), "max_length": options.context_length}
        programs = {
            "harness": Server([sys.executable, str(HERE.with_name("run_harness.py"))], request),
            "lorabench": Server([sys.executable, str(HERE), "--serve"], request),
        }
        for program in programs.values():
            program.score(files[0])
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        processor: dict[str, list[float]] = {name: [] for name in programs}
        figures: dict[str, float] = {}
        for index in range(options.rounds):
            for name, program in programs.items():
                answer = program.score(files[1])
                seconds[name].append(answer["seconds"])
                processor[name].append(answer["processor_seconds"])
                figures[name] = answer["bits_per_byte"]
                print(f"round {index + 1}: {name:9} {num_tokens / answer['seconds']:6.0f} tokens/s", flush=True)
        for program in programs.values():
            program.close()
    speeds = {name: num_tokens / statistics.median(values) for name, values in seconds.items()}
    print(f"bits per byte: {figures}")
    print(f"{speeds['lorabench'] / speeds['harness']:.2f} times the harness's {speeds['harness']:.0f} tokens/s")
    ratio = speeds["lorabench"] / speeds["harness"]
    processor_ratio = statistics.median(processor["harness"]) / statistics.median(processor["lorabench"])
    print(json.dumps({"tokens_per_second": speeds, "ratio": ratio, "processor_ratio": processor_ratio}))


class Server:
    """A program that scores files when told to, and is stopped in between, so that only one of them computes."""

    def __init__(self, command: list[str], request: dict[str, Any]) -> None:
        self._request = request
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def score(self, path: Path) -> dict[str, Any]:
        """The program's answer for a file. Its own clock leaves loading out."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        os.kill(self._process.pid, signal.SIGCONT)
        self._process.stdin.write(json.dumps(self._request | {"files": [str(path)]}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended without an answer")
        os.kill(self._process.pid, signal.SIGSTOP)
        (answer,) = json.loads(line)
        return dict(answer)

    def close(self) -> None:
        """End the program."""
        os.kill(self._process.pid, signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Our side of the comparison, one line of JSON for each request, as run_harness.py."""
    from lorabench.core.device import choose_device
    from lorabench.core.machine import prepare_process
    from lorabench.corpora.files import read_local_documents
    from lorabench.models.base import load_base
    from lorabench.scoring.documents import score_documents

    prepare_process()
    base, folder, tokeniser = None, None, None
    for line in sys.stdin:
        request = json.loads(line)
        if base is None or folder != request["model"]:
            folder = request["model"]
            base = load_base(Path(folder), precision="fp32", device=str(choose_device()))
            tokeniser = Tokeniser(Path(folder))
        assert tokeniser is not None
        answers = []
        for path in request["files"]:
            documents = read_local_documents(Path(path))
            started, processor_started = time.perf_counter(), time.process_time()
            scores = score_documents(
                base,
                documents,
                tokeniser.encode(documents),
                prefix=tokeniser.prefix_token_id,
                context_length=request["max_length"],
            ).total()
            answers.append(
                {
                    "seconds": time.perf_counter() - started,
                    "processor_seconds": time.process_time() - processor_started,
                    "bits_per_byte": scores.bits_per_byte,
                }
            )
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
