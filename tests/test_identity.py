from __future__ import annotations

import re
from typing import Any

import pytest

from lorabench.config import AdapterSettings, EvaluationSettings, RunSpec, TrainingSettings
from lorabench.identity import canonical, fingerprint, run_id


def make_spec(**changes: Any) -> RunSpec:
    values: dict[str, Any] = {
        "model": "gpt2",
        "model_revision": "abc",
        "dataset": "news",
        "dataset_revision": "1",
        "adapter": AdapterSettings(rank=8),
        "training": TrainingSettings(precision="fp32"),
        "evaluation": EvaluationSettings(),
        "seed": 0,
    }
    return RunSpec(**{**values, **changes})


def test_the_id_is_readable_safe_and_stable() -> None:
    assert run_id(make_spec()) == run_id(make_spec())
    assert re.fullmatch(r"gpt2_news_lora-r8-lr0\.0003-s0_[0-9a-f]{10}", run_id(make_spec()))
    hostile = run_id(make_spec(model="../../etc/passwd\n<b>", dataset="x" * 500))
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,140}", hostile)
    assert not hostile.startswith(".")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"model_revision": "abd"},
        {"dataset_revision": "2"},
        {"adapter": AdapterSettings(rank=8, dropout=0.1)},
        {"training": TrainingSettings(precision="fp32", weight_decay=0.1)},
        {"training": TrainingSettings(precision="bf16")},
        {"evaluation": EvaluationSettings(validation_bytes=1)},
    ],
)
def test_whatever_can_change_a_number_changes_the_id(change: dict[str, Any]) -> None:
    assert run_id(make_spec(**change)) != run_id(make_spec())


def test_a_precision_must_be_chosen_first() -> None:
    with pytest.raises(ValueError, match="precision"):
        run_id(make_spec(training=TrainingSettings()))


def test_the_canonical_form_has_one_way_to_write_a_value() -> None:
    assert canonical({"b": 1.0, "a": [1, None, True]}) == '{"a":[1,null,true],"b":1}'
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {1, 2}, object(), b"x"])
def test_the_canonical_form_refuses_what_it_cannot_write(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical(value)
