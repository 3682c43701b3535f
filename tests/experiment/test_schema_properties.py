from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lorabench.core.errors import ConfigError
from lorabench.experiment.schema import (
    EvaluationSettings,
    Experiment,
    TrainingSettings,
    build_experiment,
    load_experiment,
)
from lorabench.methods.settings import AdapterSettings

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=40),
    st.sampled_from(["2r", "lora", "all-linear", "auto", "cosine", "../x", "a/b", ".", "\x00", "x" * 10_000]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def section(model: type) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(list(model.model_fields)) | st.text(max_size=8)  # type: ignore[attr-defined]
    return st.dictionaries(keys, values, max_size=5) | values


experiments = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | values,
        "models": st.just(["a"]) | values,
        "datasets": st.just(["b"]) | values,
        "adapter": section(AdapterSettings),
        "training": section(TrainingSettings),
        "evaluation": section(EvaluationSettings),
        "seeds": st.lists(st.integers(), max_size=3) | values,
        "question": values,
    },
)


def check_sentence(error: ConfigError) -> None:
    assert "\n" not in str(error)
    assert 0 < len(str(error)) < 700


@settings(max_examples=400, deadline=None)
@given(experiments)
def test_every_configuration_is_accepted_or_refused_with_one_sentence(raw: dict[str, Any]) -> None:
    try:
        experiment = build_experiment(raw)
    except ConfigError as error:
        check_sentence(error)
        return
    assert build_experiment(yaml.safe_load(experiment.to_yaml())) == experiment


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda data: data.decode("latin-1")))
def test_every_file_is_accepted_or_refused_with_one_sentence(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.mktemp("experiment") / "x.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        load_experiment(path)
    except ConfigError as error:
        check_sentence(error)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 4096), min_size=1, max_size=3, unique=True),
    st.lists(st.floats(1e-8, 10.0), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3, unique=True),
)
def test_parse_dump_parse_is_stable(ranks: list[int], rates: list[float], seeds: list[int]) -> None:
    raw = {
        "name": "x",
        "models": ["a"],
        "datasets": ["b"],
        "adapter": {"rank": ranks},
        "training": {"learning_rate": rates},
        "seeds": seeds,
    }
    experiment = build_experiment(raw)
    assert isinstance(experiment, Experiment)
    assert build_experiment(yaml.safe_load(experiment.to_yaml())) == experiment
