from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorabench.core.errors import ConfigError
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import build_experiment, load_experiment
from lorabench.methods.settings import AdapterSettings

EXPERIMENT = """
name: rank_by_learning_rate
models: [smollm2-135m-instruct]
datasets: [news, python-code]
adapter:
  rank: [8, 16, 32]
  alpha: 2r
training:
  learning_rate: [1.0e-4, 3e-4, 1.0e-3]
  train_bytes: 2_000_000
seeds: [0, 1, 2]
"""


@pytest.fixture
def experiment_file(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return path


def test_lists_are_axes(experiment_file: Path) -> None:
    experiment = load_experiment(experiment_file)
    assert experiment.num_runs == 2 * 3 * 3 * 3
    assert [adapter.rank for adapter, _ in experiment.combinations()][:3] == [8, 16, 32]
    assert [training.learning_rate for training in experiment.trainings()] == [1e-4, 3e-4, 1e-3]
    assert {training.train_bytes for training in experiment.trainings()} == {2_000_000}


def test_parse_dump_parse_is_stable(experiment_file: Path, tmp_path: Path) -> None:
    experiment = load_experiment(experiment_file, ["adapter.target_modules=[attention, 'q_proj,v_proj']"])
    again = tmp_path / "again.yaml"
    again.write_text(experiment.to_yaml(), encoding="utf-8")
    assert load_experiment(again) == experiment


def test_alpha_follows_the_rank_or_stands_alone() -> None:
    assert AdapterSettings(rank=8, alpha="2r").alpha_value == 16
    assert AdapterSettings(rank=8, alpha="0.5 r").alpha_value == 4
    assert AdapterSettings(rank=8, alpha=32).alpha_value == 32


def test_overrides_reach_nested_keys(experiment_file: Path) -> None:
    overrides = ["training.learning_rate=1e-3", "seeds=[7]", "evaluation.times=1"]
    experiment = load_experiment(experiment_file, overrides)
    assert experiment.trainings()[0].learning_rate == 1e-3
    assert experiment.seeds == (7,)
    assert experiment.evaluation.times == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("adapter.rnk=3", ["adapter.rnk", "unknown key", "'rank'"]),
        ("trainin.x=2", ["trainin", "unknown key", "'training'"]),
        ("evaluation.foo=1", ["evaluation.foo", "unknown key", "validation_bytes"]),
        ("adapter.rank=0", ["adapter.rank", "0", "greater than or equal to 1"]),
        ("adapter.rank=abc", ["adapter.rank", "'abc'", "integer"]),
        ("adapter.rank=true", ["adapter.rank", "True"]),
        ("adapter.rank=[[[[1]]]]", ["adapter.rank", "integer"]),
        ("adapter.rank=[]", ["adapter.rank", "empty"]),
        ("adapter.rank=[8, 8]", ["adapter.rank", "twice"]),
        ("adapter.method=lorra", ["adapter.method", "'lorra'", "'lora'"]),
        ("adapter.alpha=r2", ["adapter.alpha", "'r2'", "2r"]),
        ("adapter.dropout=.inf", ["adapter.dropout", "inf"]),
        ("adapter.dropout=1", ["adapter.dropout", "less than 1"]),
        ("adapter.target_modules=a/../b", ["adapter.target_modules", "all-linear"]),
        ("training.learning_rate=.nan", ["training.learning_rate", "nan"]),
        ("training.precision=fp8", ["training.precision", "'auto', 'fp32', 'bf16' or 'fp16'"]),
        ("training.train_bytes=99999999999999999999999999", ["training.train_bytes"]),
        ("training.epochs=1.5", ["training.epochs", "1.5"]),
        ("training=5", ["training", "mapping"]),
        ("models=[]", ["models", "[]"]),
        ("models=[a, a]", ["models", "twice"]),
        ("name=../x", ["name", "'../x'"]),
        ("seeds=[-1]", ["seeds", "-1"]),
        ("seeds=[1e400]", ["seeds", "inf"]),
        ("adapter.rank=&a [*a]", ["aliases"]),
        ("adapter.rank=" + "[" * 3000, ["nested"]),
        ("adapter.rank: 3", ["key=value"]),
        ("adapter.rank={a: {b: c", ["not valid YAML"]),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(experiment_file: Path, override: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(experiment_file, [override])
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 450
    for part in said:
        assert part in message


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="datasets: the key is missing"):
        build_experiment({"name": "x", "models": ["a"]})


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(EXPERIMENT + "seeds: [1]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="seeds: the key is given twice"):
        load_experiment(path)


def test_too_many_runs_are_refused(experiment_file: Path) -> None:
    with pytest.raises(ConfigError, match="at most 10000"):
        load_experiment(experiment_file, [f"seeds={list(range(1000))}"])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"- a\n- b\n", b"", b"a: !!python/object/apply:os.system [ls]"])
def test_files_that_are_no_experiments(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        load_experiment(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_experiment(tmp_path / "nothing.yaml")


ENTRIES = """
name: methods
models: [smollm2-135m-instruct]
datasets: [news]
adapters:
  - {rank: [8, 16]}
  - {method: full, training: {learning_rate: [1.0e-5, 3e-5], weight_decay: 0.1}}
training: {learning_rate: [1.0e-4, 3e-4, 1.0e-3], epochs: 2}
seeds: [0, 1]
"""


def test_each_entry_of_adapters_is_a_product_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(ENTRIES, encoding="utf-8")
    experiment = load_experiment(path)
    assert experiment.num_runs == 2 * (2 * 3 + 2)
    assert [
        (adapter.method, adapter.rank, training.learning_rate, training.weight_decay)
        for adapter, training in experiment.combinations()
    ] == [
        *(("lora", rank, rate, 0.0) for rate in (1e-4, 3e-4, 1e-3) for rank in (8, 16)),
        *(("full", 16, rate, 0.1) for rate in (1e-5, 3e-5)),
    ]
    assert {training.epochs for training in experiment.trainings()} == {2}
    path.write_text(experiment.to_yaml(), encoding="utf-8")
    assert load_experiment(path) == experiment
    assert load_experiment(path, ["adapters=[{rank: 4}]"]).num_runs == 6


def test_an_entry_may_be_for_some_models_and_corpora_alone(tmp_path: Path, cache: Path) -> None:
    rows = [json.dumps({"text": f"Text number {number} of one's own."}) for number in range(40)]
    (tmp_path / "own.jsonl").write_text("\n".join(rows))
    path = tmp_path / "experiment.yaml"
    path.write_text("""
name: cells
models: [gpt2-mini, gemma-mini]
datasets: [news, own.jsonl, {name: mine, path: own.jsonl}]
adapters:
  - {rank: [4, 8], models: gpt2-mini, datasets: [news, own.jsonl]}
  - {rank: 2, models: [gemma-mini], training: {learning_rate: [1.0e-3, 1.0e-4]}}
  - {rank: 1, datasets: mine}
training: {context_length: 128}
seeds: [0, 1]
""")
    experiment = load_experiment(path)
    assert experiment.num_runs == 2 * (2 * 2 + 3 * 2 + 2)
    runs = [
        (run.spec.model, run.spec.dataset.partition("-")[0], run.spec.adapter.rank)
        for run in make_plan(experiment).runs
    ]
    assert len(runs) == experiment.num_runs
    assert set(runs) == {
        *(("gpt2-mini", corpus, rank) for corpus in ("news", "own") for rank in (4, 8)),
        *(("gemma-mini", corpus, 2) for corpus in ("news", "own", "mine")),
        *((model, "mine", 1) for model in ("gpt2-mini", "gemma-mini")),
    }
    path.write_text(experiment.to_yaml(), encoding="utf-8")
    assert load_experiment(path) == experiment


def test_adapter_is_the_list_of_one(experiment_file: Path) -> None:
    alone = load_experiment(experiment_file)
    listed = build_experiment(
        {**alone.model_dump(exclude={"adapter", "adapters"}), "adapters": [{**alone.adapter, "training": None}]}
    )
    assert listed.combinations() == alone.combinations()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"adapters": []}, "adapters: the list is empty"),
        ({"adapters": {"rank": 8}}, "should be a list of mappings"),
        ({"adapters": [8]}, r"adapters\[0\]: should be a mapping"),
        ({"adapters": [{}, {"ranks": 8}]}, r"adapters\[1\].ranks: unknown key. Did you mean .rank"),
        ({"adapters": [{"rank": 8, "training": {"devices": 2}}]}, r"adapters\[0\].training.devices: it holds for all"),
        (
            {"adapters": [{"training": {"gradient_checkpointing": True}}]},
            r"adapters\[0\].training.gradient_checkpointing: it holds for all runs of an experiment; give it as tr",
        ),
        ({"training": {"learning_rate": 1e-30}}, r"training.learning_rate: 1e-30 is not accepted; .* 0.00000001"),
        ({"adapters": [{"training": {"learning_rate": -1}}]}, r"adapters\[0\].training.learning_rate: -1 is not"),
        ({"adapters": [{"method": "lorra"}]}, r"adapters\[0\].method: 'lorra' is not accepted"),
        ({"adapters": [{"rank": 8}, {"rank": [8]}]}, "an entry is listed twice"),
        ({"adapters": [{"rank": 8}], "adapter": {"rank": 4}}, "not both"),
        ({"adapters": [{"models": "gpt2"}]}, r"adapters\[0\].models: 'gpt2' is none of the experiment's models"),
        ({"adapters": [{"datasets": 3}]}, r"adapters\[0\].datasets: 3 is not accepted; give names"),
        (
            {"adapters": [{"datasets": "news"}], "datasets": ["news", "stories"]},
            "datasets: no entry of adapters takes stories",
        ),
        (
            {"adapters": [{"datasets": "news"}], "datasets": ["news"], "search": "halving"},
            r"adapters\[0\].datasets: a search tries all entries",
        ),
        (
            {"adapters": [{"rank": 8}, {"rank": 4, "training": {"batch_size": 2}}], "training": {"devices": 4}},
            "the smallest batch has 2",
        ),
    ],
)
def test_entries_that_cannot_be_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_experiment({"name": "n", "models": ["m"], "datasets": ["d"], **changes})
