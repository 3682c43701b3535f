"""Whatever an experiment file or a --set says, it is planned or refused with one sentence."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import lorabench
from lorabench.core.errors import ConfigError, InputError
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import EvaluationSettings, TrainingSettings, build_experiment, load_experiment
from lorabench.methods.settings import AdapterSettings
from tests.experiment.test_schema_properties import values
from tests.runs.conftest import ExperimentWriter

SECTIONS: dict[str, type] = {"adapter": AdapterSettings, "training": TrainingSettings, "evaluation": EvaluationSettings}
plausible = st.one_of(
    st.integers(-2, 5000),
    st.floats(1e-6, 100.0),
    st.sampled_from(["2r", "0.5r", "lora", "dora", "full", "all-linear", "attention", "mlp", "q_proj", "auto", "fp32"]),
)
KEYS = [f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields]  # type: ignore[attr-defined]
keys = st.sampled_from([*KEYS, "seeds", "text_field", "name", "question", "datasets", "models"]) | st.text(max_size=12)
yaml_texts = st.text(max_size=40) | (plausible | st.lists(plausible, max_size=3) | values).map(
    lambda value: yaml.safe_dump(value, allow_unicode=True)
)


def one_sentence(error: Exception) -> None:
    assert "\n" not in str(error)
    assert 0 < len(str(error)) < 1500


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path], corpus: Path) -> dict[str, Any]:
    return {
        "name": "x",
        "models": [str(tiny_model("smollm2")), str(tiny_model("gpt2"))],
        "datasets": [str(corpus)],
        "training": {"context_length": 32},
    }


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(keys, yaml_texts), min_size=1, max_size=3))
@example([("adapter.rank", "0x" + "f" * 20_000)])
@example([("name", "0x" + "f" * 20_000)])
@example([("seeds", "[0b" + "1" * 30_000 + "]")])
@example([("question", '"\\ud800"')])
@example([("text_field", '"\\ud800\\0"')])
@example([("adapter.target_modules", "[q_proj, [v_proj]]")])
@example([("training.train_bytes", "1"), ("evaluation.test_bytes", "1")])
@example([("adapter.rank.x.y.z", "1")])
@example([("evaluation.also_on", "[/dev/zero]")])
@example([("datasets", "['~nobody/x.txt']")])
@example([("models", "['\\0']")])
@example([("models", "[" + "a/" * 400 + "]")])
def test_every_override_is_planned_or_refused(base: dict[str, Any], overrides: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_text(yaml.safe_dump(base), encoding="utf-8")
        try:
            experiment = load_experiment(path, [f"{key}={text}" for key, text in overrides])
            again = build_experiment(yaml.safe_load(experiment.to_yaml()))
            assert again == experiment
            if experiment.num_runs <= 200:
                assert make_plan(experiment).to_json()
        except InputError as error:
            one_sentence(error)


BOMBS = {
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nname: [*b, *b]\n",
    "merge keys": "a: &a {x: 1}\nname: {<<: *a}\n",
    "nested flow": "name: " + "[" * 30_000,
    "nested blocks": "\n".join(f"{' ' * index}a:" for index in range(400)),
    "nested dashes": "- " * 20_000,
    "nested questions": "? " * 20_000,
    "many keys": "{" + ", ".join(f"a{index}: 1" for index in range(7_000)) + "}",
    "a tag that builds": "name: !!python/object/new:os.system [echo]",
    "two documents": "name: a\n---\nname: b\n",
    "a directive": "%TAG ! tag:x,2000:\n---\nname: !y z",
    "binary": "name: !!binary aGVsbG8=",
    "a set": "models: !!set {a, b}",
    "a date": "name: 2024-01-01",
    "tabs": "name:\t\n\t- x",
    "control characters": "name: \x07\x1b[31m",
    "megabytes": "question: " + "x" * 5_000_000,
    "keys that are lists": "? [a, b]\n: c",
    "keys that are mappings": "? {a: b}\n: c",
    "null as a key": "null: 1",
}


@pytest.mark.parametrize("what", BOMBS)
@pytest.mark.timeout(20)
def test_hostile_yaml_is_one_sentence(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(BOMBS[what], encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    one_sentence(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.timeout(20)
def test_a_device_that_never_ends_is_refused() -> None:
    with pytest.raises(ConfigError, match="larger than"):
        load_experiment("/dev/zero")


def test_ten_thousand_characters_anywhere(experiment: ExperimentWriter) -> None:
    long = "x" * 10_000
    for override in [
        *(f"{key}={long}" for key in [*KEYS, "name", "question", "models", "datasets", "seeds", "text_field"]),
        *(f"{key}=[{long}]" for key in [*KEYS, "models", "datasets"]),
        f"{long}=1",
        f"adapter.{long}=1",
        long,
    ]:
        with pytest.raises(InputError) as caught:
            lorabench.plan(experiment(), [override])
        one_sentence(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trackers": ["wandbb"]}, "wandb"),
        ({"trackers": 5}, "tracker"),
        ({"device": 5}, "device"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds"),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds"),
        ({"checkpoint_seconds": "often"}, "checkpoint_seconds"),
        ({"overrides": [3]}, "key=value"),
        ({"overrides": "adapter.rnk=3"}, "adapter.rnk"),
    ],
)
def test_options_from_python(experiment: ExperimentWriter, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        lorabench.run(experiment(), tmp_path / "out", **({"trackers": ["none"]} | options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", [None, 3, "", "\0", b"x"])
def test_paths_that_are_none(path: Any, experiment: ExperimentWriter) -> None:
    with pytest.raises(InputError):
        lorabench.plan(path)
    with pytest.raises(InputError):
        lorabench.run(experiment(), path or 3, trackers=["none"])
