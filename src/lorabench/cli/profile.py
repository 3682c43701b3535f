"""Chooses the profile that fits this machine: `python -m lorabench.cli.profile FOLDER [NAME]`.

Prints the experiments to run from the folder, one a line, then the settings to run them with, one a line and each with
an equals sign; why, to stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lorabench.cli.commands.doctor import hub_is_reachable
from lorabench.core.device import choose_device
from lorabench.core.storage import cache_root, recall, remember
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import load_experiment

EXPERIMENTS = {"smoke": ("smoke",), "local": ("local", "local_models"), "full": ("full",)}
LIMIT_SECONDS = {True: 600.0, False: 1200.0}
"""For all of a profile that is fitted to the machine, with bfloat16 units and without."""
BUDGETS = {
    "large": ("training.train_bytes=30000", "evaluation.validation_bytes=100000", "evaluation.test_bytes=30000"),
    "medium": ("training.train_bytes=15000", "evaluation.validation_bytes=60000", "evaluation.test_bytes=20000"),
    "small": ("training.train_bytes=4000", "evaluation.validation_bytes=10000", "evaluation.test_bytes=3000"),
}
"""Of text, largest first. `small` is what the files hold."""


def choose_profile() -> tuple[str, str]:
    """The profile's name and the reason for it."""
    device = choose_device()
    if not device.is_gpu:
        return "local", device.note or "there is no GPU here"
    if not hub_is_reachable():
        return "local", "there is a GPU, but the hub cannot be reached"
    return "full", "there is a GPU and the hub can be reached"


def choose_budget(experiments: list[Path]) -> tuple[str, float]:
    """The largest of `BUDGETS` that this machine can pay for within its limit, and the seconds that it is planned with.

    It is chosen once and kept in the cache, so that the same command goes on with the same runs.
    """
    kept = cache_root() / "calibration" / "local-budget.json"
    known = recall(kept)
    names = [known] if isinstance(known, str) and known in BUDGETS else list(BUDGETS)
    device = choose_device()
    for name in names:
        plans = [make_plan(load_experiment(path, list(BUDGETS[name])), device) for path in experiments]
        runs = {run.run_id: run.estimated_seconds for plan in plans for run in plan.runs}
        seconds = sum(runs.values()) + sum(plan.estimated_shared_seconds for plan in plans)
        if name == names[-1] or seconds <= LIMIT_SECONDS[device.supports_bf16 and not device.is_gpu]:
            break
    remember(kept, name)
    return name, seconds


def main(folder: Path, name: str | None) -> None:
    """Print what to run."""
    if name is None:
        name, reason = choose_profile()
        print(f"Profile: {name} ({reason})", file=sys.stderr)
    print("\n".join(EXPERIMENTS[name]))
    if name == "local":
        budget, seconds = choose_budget([folder / f"{experiment}.yaml" for experiment in EXPERIMENTS[name]])
        print(f"Budget: {budget}, about {seconds / 60:.0f} min on this machine", file=sys.stderr)
        print("\n".join(BUDGETS[budget]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
