"""How steps are laid out to fit: fewer rows first, gradient checkpointing only where that is not enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorabench.core.cards import CARDS
from lorabench.core.errors import ConfigError
from lorabench.experiment.layout import SHARE, Layout, fits, fitting, remember_rows, rows_at_most
from lorabench.experiment.memory import estimate_memory
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import Checkpointing, build_experiment
from lorabench.experiment.workload import Workload
from lorabench.methods.settings import AdapterSettings
from lorabench.models.planning import plan_model

SHAPE = plan_model("gemma-2b").shape
WORK = Workload(
    context_length=1024, precision="bf16", evaluation_tokens=0, train_tokens=10_000, adapter=AdapterSettings(),
    target_modules=tuple(SHAPE.linears), rows_at_once=16,
)  # fmt: skip
DEVICE = CARDS["H200"].device


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "cache"))


def experiment(**training: Any) -> Any:
    values = {"learning_rate": 1e-3, "context_length": 1024, "precision": "bf16", **training}
    return build_experiment({"name": "q", "models": ["gpt2"], "datasets": ["stories"], "training": values})


def memory_for(**changes: Any) -> int:
    """Just enough."""
    return int(estimate_memory(SHAPE, replace(WORK, **changes)) / SHARE) + 1


@pytest.mark.parametrize(
    ("memory", "asked", "expected"),
    [
        (memory_for(), "auto", (16, False)),
        (memory_for() - 10, "auto", (8, False)),
        (memory_for(rows_at_once=1), "auto", (1, False)),
        (memory_for(rows_at_once=1) - 10, "auto", (2, True)),
        (memory_for(rows_at_once=1) - 10, False, (1, False)),
        (memory_for(), True, (16, True)),
        (1, "auto", (1, True)),
    ],
)
def test_fewer_rows_come_before_checkpointing(memory: int, asked: Checkpointing, expected: tuple[int, bool]) -> None:
    found = fitting(SHAPE, WORK, memory, asked, fewer_rows=True)
    assert (found.rows_at_once, found.checkpointing) == expected
    assert fits(SHAPE, found, memory) or memory == 1 or asked is False


def test_rows_that_were_asked_for_stay() -> None:
    found = fitting(SHAPE, WORK, memory_for() - 10, "auto", fewer_rows=False)
    assert (found.rows_at_once, found.checkpointing) == (16, True)


def test_from_many_rows_to_one_with_checkpointing() -> None:
    seen, layout = [], Layout(5)
    while layout is not None:
        seen.append(str(layout))
        layout = layout.smaller("auto")  # type: ignore[assignment]
    assert seen == ["5", "2", "1", "1 with gradient checkpointing"]
    assert Layout(1).smaller(False) is None
    assert Layout(2, True).smaller(True) == Layout(1, True)


def test_what_fitted_is_known_to_later_runs_of_the_same() -> None:
    (run,) = make_plan(experiment(), DEVICE).runs
    other = make_plan(experiment(context_length=512), DEVICE).runs[0].spec
    asked = make_plan(experiment(micro_batch_size=16), DEVICE).runs[0].spec
    assert rows_at_most(run.spec, DEVICE, 1000, 1) == 16
    remember_rows(run.spec, DEVICE, 1000, 2)
    assert rows_at_most(run.spec, DEVICE, 1000, 1) == 2
    assert rows_at_most(run.spec.model_copy(update={"seed": 7}), DEVICE, 1100, 1) == 2
    assert rows_at_most(run.spec, DEVICE, 1250, 1) == 16, "there is more memory now"
    assert rows_at_most(run.spec, CARDS["L4"].device, 1000, 1) == 16
    assert rows_at_most(other, DEVICE, 1000, 1) == 16
    assert rows_at_most(asked, DEVICE, 1000, 1) == 16


def test_it_is_no_part_of_a_run() -> None:
    runs = [make_plan(experiment(gradient_checkpointing=asked), DEVICE).runs[0] for asked in ("auto", True, False)]
    assert len({run.run_id for run in runs}) == 1
    assert [run.workload.checkpointing for run in runs] == [False, True, False]
    assert runs[1].estimated_memory_bytes < runs[0].estimated_memory_bytes
    assert runs[1].estimated_seconds > runs[0].estimated_seconds


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([True, False], "a list is not accepted; runs are the same with it and without, so give one"),
        ("maybe", "training.gradient_checkpointing: 'maybe' is not accepted"),
    ],
)
def test_other_values_are_refused(value: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        experiment(gradient_checkpointing=value)


def test_it_is_refused_where_it_would_be_wrong() -> None:
    values = experiment(gradient_checkpointing=True, context_length=512).model_dump() | {
        "adapter": {"method": "prefix_tuning"}
    }
    values.pop("adapters")
    with pytest.raises(ConfigError, match=r"true is not accepted with adapter\.method prefix_tuning"):
        make_plan(build_experiment(values), DEVICE)
