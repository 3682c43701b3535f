"""How long the same decision takes: a sweep with PEFT and its Trainer, next to `lorabench run` with a search.

    python benchmarks/compare_with_sweep.py SWEEP.py --model smollm2-135m-instruct
    python benchmarks/compare_with_sweep.py SWEEP.py --text notes.txt --search 'strategy: racing' --steps 81

Both choose among the same ranks and learning rates, with as many tokens of the same training text and the same other
settings, and score as many tokens of the same validation file. Each is timed as one whole process: ours includes
loading, the base's own scores, rungs, test and report; the sweep trains and scores each configuration in a process of
its own. Like the sweep, ours decides with one seed (`racing`: with two); the further seeds of its winner are done and
timed by a second command. `--search` may be given several times: each is timed against the one sweep. Off the clock,
ours then trains the sweep's winner to its end, and the two winners of one seed are compared by document (`lorabench
compare`), each by our scores. They are tied where the interval of the difference holds zero. Schedules are each
program's own. The last line is JSON.

A sweep takes long. With `--sweep-rates` it does these rates alone, and its time is scaled to all of them, since each
configuration takes as long as the others of its rank; it then has no winner, and nothing is compared.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from compare_with_peer import save_random

from lorabench.corpora.catalog import find_corpus
from lorabench.corpora.store import load_prepared
from lorabench.models.locate import locate_model
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import load_records

LORABENCH = (sys.executable, "-m", "lorabench")
SCORED_WINDOWS = 64
"""Of the validation file, by peft_trainer.py."""
NUM_SEEDS = 3
"""That our winner is trained with in the end."""
VALIDATION_SHARE = 10
"""One document of so many is for validation, another one for test."""


class Configuration(NamedTuple):
    """What both programs choose."""

    rank: int
    learning_rate: float


class Found(NamedTuple):
    """What one search took and chose."""

    seconds: float
    seconds_of_further_seeds: float
    winner: Configuration
    train_tokens: int
    adapter: Path
    """Of the winner's first seed."""


def read_search(text: str) -> dict[str, Any]:
    """The `search` section of an experiment, in one line."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not YAML: {error}") from None
    if not isinstance(values, dict) or values.get("strategy") not in ("halving", "racing"):
        raise argparse.ArgumentTypeError(f"{text!r} has no strategy that is halving or racing")
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="the peer's script; the options that peft_sweep.py takes")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--random-weights", action="store_true", help="the catalogue's size, no hub needed")
    parser.add_argument("--text", type=Path, help="documents between blank lines, instead of --dataset")
    parser.add_argument("--dataset", default="medical", help="of the catalogue")
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16, 64])
    rates = [1e-5, 3e-5, 1e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]
    parser.add_argument("--learning-rates", type=float, nargs="+", default=rates)
    parser.add_argument("--sweep-rates", type=float, nargs="+", help="the sweep does these alone; its time is scaled")
    parser.add_argument("--steps", type=int, default=108, help="of a whole run; the first rung needs four of them")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--context-length", type=int, default=128)
    example = "of ours, such as '{strategy: halving, eta: 3, keep: 1}'; without it, halving with its defaults"
    parser.add_argument("--search", action="append", type=read_search, metavar="YAML", help=example)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="of both")
    parser.add_argument("--devices", help="of ours, such as cpu:2 for two workers with a thread each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.random_weights:
            model = save_random(options.model, folder / options.model)
        else:
            model = locate_model(options.model).folder
        parts = write_parts(read_documents(options.text, options.dataset), folder)
        result = race(options, model, parts, folder)
    print_result(result)
    print(json.dumps(result))


def race(options: argparse.Namespace, model: Path, parts: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Each search, then the sweep, then their winners against its."""
    asked_tokens = options.steps * options.batch_size * options.context_length
    num_scored = SCORED_WINDOWS * options.context_length
    num_bytes = {"train": bytes_of_tokens(model, parts["train"], asked_tokens)}
    num_bytes |= {part: bytes_of_tokens(model, parts[part], num_scored) for part in ("validation", "test")}
    base = describe(options, model, parts, num_bytes)
    axes = {"rank": options.ranks, "learning_rate": options.learning_rates}
    searches = options.search or [{"strategy": "halving"}]
    ours = [run_search(options, base, axes, search, folder / f"ours_{n}") for n, search in enumerate(searches)]
    sweep_rates = options.sweep_rates or options.learning_rates
    peer_seconds, printed = timed(sweep_command(options, sweep_rates, model, parts))
    peer_seconds *= len(options.learning_rates) / len(sweep_rates)
    peer = json.loads(printed.strip().splitlines()[-1])
    theirs = None
    if not options.sweep_rates:
        theirs = Configuration(peer["best"]["rank"], peer["best"]["learning_rate"])
    if theirs is not None and any(found.winner != theirs for found in ours):
        one = {"rank": [theirs.rank], "learning_rate": [theirs.learning_rate]}
        timed(run_command(options, write_search(folder / "theirs.yaml", base, one, {}, 1), folder / "theirs"))
    return {
        "configurations": len(options.ranks) * len(options.learning_rates),
        "peer_seconds": peer_seconds,
        "peer_winner": None if theirs is None else theirs._asdict(),
        "peer_tokens": asked_tokens,
        "ours": [
            {
                "search": search,
                "seconds": found.seconds,
                "seconds_of_further_seeds": found.seconds_of_further_seeds,
                "ratio": peer_seconds / found.seconds,
                "winner": found.winner._asdict(),
                "tokens": found.train_tokens,
                "difference": compare(options, found, theirs, parts["validation"], folder / "theirs"),
            }
            for search, found in zip(searches, ours, strict=True)
        ],
    }


def run_search(
    options: argparse.Namespace, base: dict[str, Any], axes: dict[str, Any], search: dict[str, Any], output_dir: Path
) -> Found:
    """`lorabench run` with one search, then with further seeds of its winner."""
    path = output_dir.with_suffix(".yaml")
    num_seeds = (len(seeds_of(search["strategy"])), NUM_SEEDS)
    seconds, further = (
        timed(run_command(options, write_search(path, base, axes, search, num), output_dir))[0] for num in num_seeds
    )
    best = winner(output_dir)
    first = first_of(output_dir, best)
    if first.budget is None:
        raise SystemExit(f"{first.run_id}: a finished run without a budget")
    return Found(seconds, further, best, first.budget.train_tokens, adapter_of(output_dir, first))


def compare(
    options: argparse.Namespace, found: Found, theirs: Configuration | None, validation: Path, output_dir: Path
) -> dict[str, Any] | None:
    """Our choice less the sweep's in bits per byte, by document; None where they are the same or the sweep has none."""
    if theirs is None or theirs == found.winner:
        return None
    adapters = (found.adapter, adapter_of(output_dir, first_of(output_dir, theirs)))
    context = ("--context-length", str(options.context_length))
    command = (*LORABENCH, "compare", *map(str, adapters), "--data", str(validation), *context, "--json")
    difference: dict[str, Any] = json.loads(timed(command)[1])
    return difference


def describe(
    options: argparse.Namespace, model: Path, parts: dict[str, Path], num_bytes: dict[str, int]
) -> dict[str, Any]:
    """The experiment but for its axes: what the sweep has fixed."""
    return {
        "name": "race",
        "models": [str(model)],
        "datasets": [{part: str(path) for part, path in parts.items()}],
        "adapter": {"alpha": "2r", "dropout": 0.0, "target_modules": "all-linear"},
        "training": {
            "batch_size": options.batch_size,
            "context_length": options.context_length,
            "train_bytes": num_bytes["train"],
            "precision": options.precision,
        },
        "evaluation": {"validation_bytes": num_bytes["validation"], "test_bytes": num_bytes["test"], "samples": 0},
    }


def write_search(
    path: Path, base: dict[str, Any], axes: dict[str, Any], search: dict[str, Any], num_seeds: int
) -> Path:
    """An experiment over ranks and rates whose winner is trained with so many seeds; halving where nothing is named."""
    training = {**base["training"], "learning_rate": axes["learning_rate"]}
    adapter = {**base["adapter"], "rank": axes["rank"]}
    search = {"strategy": "halving", **search, "seeds_at_the_end": num_seeds}
    seeds = seeds_of(search["strategy"])
    values = {**base, "adapter": adapter, "training": training, "seeds": seeds, "search": search}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def seeds_of(strategy: str) -> list[int]:
    """That a search decides with: racing needs two."""
    return [0, 1] if strategy == "racing" else [0]


def run_command(options: argparse.Namespace, experiment: Path, output_dir: Path) -> tuple[str, ...]:
    devices = ("--devices", options.devices) if options.devices else ()
    return (*LORABENCH, "run", str(experiment), "--output-dir", str(output_dir), "--tracker", "none", *devices)


def sweep_command(
    options: argparse.Namespace, learning_rates: list[float], model: Path, parts: dict[str, Path]
) -> tuple[str, ...]:
    """The peer's sweep over the same ranks and these rates, at the length of our whole runs."""
    return (
        *(sys.executable, str(options.sweep), "--ranks", *map(str, options.ranks)),
        *("--learning-rates", *map(str, learning_rates), "--model", str(model)),
        *("--text", str(parts["train"]), "--eval-text", str(parts["validation"]), "--precision", options.precision),
        *("--context-length", str(options.context_length), "--batch-size", str(options.batch_size)),
        *("--steps", str(options.steps)),
    )


def timed(command: tuple[str, ...]) -> tuple[float, str]:
    """Seconds of the whole process, and what it printed. Ends the comparison where it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return seconds, done.stdout


def finished(output_dir: Path) -> list[RunRecord]:
    """What was trained to its end, the lowest seed first."""
    done = [record for record in load_records(output_dir) if record.status is Status.COMPLETED]
    return sorted(done, key=lambda record: record.spec.seed)


def first_of(output_dir: Path, wanted: Configuration) -> RunRecord:
    """The lowest seed of a configuration that was trained to its end."""
    return next(record for record in finished(output_dir) if configuration(record) == wanted)


def adapter_of(output_dir: Path, record: RunRecord) -> Path:
    """Where a run's adapter lies."""
    return output_dir / "runs" / record.run_id / "adapter"


def configuration(record: RunRecord) -> Configuration:
    return Configuration(record.spec.adapter.rank or 0, record.spec.training.learning_rate)


def winner(output_dir: Path) -> Configuration:
    """The finished configuration with the lowest mean bits per byte of validation over its seeds."""
    scores: dict[Configuration, list[float]] = {}
    for record in finished(output_dir):
        if record.validation is not None:
            scores.setdefault(configuration(record), []).append(record.validation.bits_per_byte)
    if not scores:
        raise SystemExit(f"{output_dir}: no run was trained to its end")
    return min(scores, key=lambda key: sum(scores[key]) / len(scores[key]))


def read_documents(path: Path | None, dataset: str) -> list[str]:
    """Of the file, or what a corpus of the catalogue trains on."""
    if path is None:
        budget = 1_000_000
        corpus = load_prepared(find_corpus(dataset, max_train_bytes=budget), max_train_bytes=budget)
        return [re.sub(r"\n\s*\n", "\n", document.text) for document in corpus.splits["train"]]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"--text {path}: {error}") from None
    documents = [document for document in text.split("\n\n") if document.strip()]
    if len(documents) < 3 * VALIDATION_SHARE:
        raise SystemExit(f"--text {path}: {len(documents)} documents; at least {3 * VALIDATION_SHARE} are needed")
    return documents


def write_parts(documents: list[str], folder: Path) -> dict[str, Path]:
    """Files of documents between blank lines: of ten documents one is for validation, one for test."""
    numbers = {"validation": [0], "test": [1], "train": list(range(2, VALIDATION_SHARE))}
    parts = {}
    for part, kept in numbers.items():
        parts[part] = folder / f"{part}.txt"
        chosen = [text for number, text in enumerate(documents) if number % VALIDATION_SHARE in kept]
        parts[part].write_text("\n\n".join(chosen), encoding="utf-8")
    return parts


def bytes_of_tokens(model: Path, text: Path, num_tokens: int) -> int:
    """Of the text that many tokens take. Ends the comparison where the text has fewer."""
    from transformers import AutoTokenizer

    content = text.read_text(encoding="utf-8")
    ids = AutoTokenizer.from_pretrained(model)(content, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) < num_tokens:
        raise SystemExit(f"{text.name} has {len(ids)} tokens, {num_tokens} are asked for: take a longer --text")
    return round(len(content.encode()) * num_tokens / len(ids))


def print_result(result: dict[str, Any]) -> None:
    print(f"{result['configurations']} configurations of {result['peer_tokens']} tokens each")
    print(f"sweep: {result['peer_seconds']:.1f} s, chose {result['peer_winner'] or 'nothing, as it did some alone'}")
    for ours in result["ours"]:
        print(f"{ours['search']}: {ours['seconds']:.1f} s, {ours['ratio']:.2f} times, chose {ours['winner']}")
        print(f"  further seeds: {ours['seconds_of_further_seeds']:.1f} s; tokens of a whole run: {ours['tokens']}")
        if result["peer_winner"]:
            print(f"  ours less the sweep's: {ours['difference'] or 'the same configuration'}")


if __name__ == "__main__":
    main()
