"""lorabench: choose a base model and a LoRA configuration for your own text, with evidence.

`plan`, `run`, `evaluate` and `load_records` do what the commands of the same names do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorabench.core.home import ensure_home
from lorabench.core.version import VERSION as __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from lorabench.experiment.plan import Plan
    from lorabench.runs.outcome import Outcome

# How long a thread of the OpenMP runtime spins before it sleeps, some 50 µs, read when torch is imported. Sleeping at
# once makes a step a quarter longer; the runtime's default, milliseconds, makes it up to 35 times as long where another
# program wants the same cores (docs/log.md).
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# Products that oneDNN has compiled for their sizes, and how many of them torch keeps beside: 1,024 each by default, at
# some 3 MB each with AMX. Documents of many lengths fill that with sizes that do not come again (docs/log.md).
for _capacity in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_capacity, "64")

ensure_home()  # before a library looks for it

__all__ = ["__version__", "evaluate", "load_records", "plan", "run"]


def plan(experiment: Path | str, overrides: Sequence[str] = (), *, device: str | None = None) -> Plan:
    """Every run that the experiment file asks for, with sizes and estimates; nothing is run.

    `overrides` are `key=value`, as for `--set`; `device` as for `--device`. Raises InputError.
    """
    from lorabench.core.device import choose_device
    from lorabench.experiment.plan import make_plan
    from lorabench.experiment.schema import load_experiment

    return make_plan(load_experiment(experiment, overrides), choose_device(device))


def run(
    experiment: Path | str, output_dir: Path | str = "outputs", *, overrides: Sequence[str] = (), **options: Any
) -> Outcome:
    """Do what is missing of the experiment file's runs and deployments; `options` as for runs.scheduler.run_experiment.

    Progress is shown on standard error where no `view` is given.
    """
    from lorabench.cli.views.view import make_view
    from lorabench.deploy.recommended import run_and_deploy
    from lorabench.experiment.schema import load_experiment

    options.setdefault("view", make_view())
    return run_and_deploy(load_experiment(experiment, overrides), output_dir, **options)


def evaluate(model: str, data: Path | str | Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Score one model on a file or a catalogue corpus; `options` as for runs.evaluation.evaluate."""
    from lorabench.runs.evaluation import evaluate as evaluate_text

    return evaluate_text(model, data, **options)


def load_records(output_dir: Path | str = "outputs") -> pd.DataFrame:
    """The table of all runs under `output_dir`: one row per record, the columns of benchmark_results.csv.

    Raises InputError where there are no runs.
    """
    import pandas as pd

    from lorabench.core.errors import InputError
    from lorabench.records.store import load_records as read
    from lorabench.report.table import csv_rows

    if not (Path(output_dir) / "runs").is_dir():
        raise InputError(f"{output_dir}: there are no runs here; give the folder that lorabench run wrote to")
    return pd.DataFrame(csv_rows(read(Path(output_dir))))
