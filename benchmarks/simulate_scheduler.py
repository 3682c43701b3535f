"""How near the scheduler's order comes to the best there is, without training anything: a table in Markdown.

python benchmarks/simulate_scheduler.py [--experiment configs/experiments/full.yaml] [--card H100] [--devices 1 4 16 64]

Seconds of runs are estimated for the card; the scheduler then gives them out to so many devices. No order ends before
all work divided by the devices, nor before the longest run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lorabench.core.cards import CARDS
from lorabench.core.formatting import duration
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.runs.elsewhere import plan_elsewhere


def main() -> None:
    """Print a row for each number of devices."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--experiment", type=Path, default=Path("configs/experiments/full.yaml"))
    parser.add_argument("--card", choices=CARDS, default="H100")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 4, 16, 64])
    chosen = parser.parse_args()
    card = CARDS[chosen.card]
    plan = make_plan(load_experiment(chosen.experiment), card.device)
    print("| devices | ends after | lower bound | above it |\n| --- | --- | --- | --- |")
    for num_devices in chosen.devices:
        found = plan_elsewhere(plan, card, num_devices)
        above = found.seconds / found.least_seconds - 1.0
        print(f"| {num_devices} | {duration(found.seconds)} | {duration(found.least_seconds)} | {above:.1%} |")


if __name__ == "__main__":
    main()
