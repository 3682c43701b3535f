from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import create_model

import lorabench.experiment.identity
from lorabench.core.canonical import canonical, fingerprint
from lorabench.core.settings import Frozen
from lorabench.experiment.identity import LEFT_OUT, BaseVariant, configuration_of, run_id
from lorabench.experiment.schema import EvaluationSettings, RunSpec, ScoringSettings, TrainingSettings
from lorabench.methods.settings import AdapterSettings


def make_spec(**changes: Any) -> RunSpec:
    values: dict[str, Any] = {
        "model": "gpt2",
        "model_revision": "abc",
        "dataset": "news",
        "dataset_revision": "1",
        "adapter": AdapterSettings(rank=8),
        "training": TrainingSettings(precision="fp32"),
        "evaluation": ScoringSettings(),
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
        {"evaluation": ScoringSettings(validation_bytes=1)},
    ],
)
def test_whatever_can_change_a_number_changes_the_id(change: dict[str, Any]) -> None:
    assert run_id(make_spec(**change)) != run_id(make_spec())


TEN: dict[str, dict[str, Any]] = {
    "smollm2-135m-instruct_news_lora-r16-lr0.0003-s0_496c989d3b": {},
    "smollm2-135m-instruct_news_lora-r16-lr0.0003-s0_254fac837a": {"training": {"precision": "bf16"}},
    "smollm2-135m-instruct_news_lora-r8-lr0.0003-s7_56bf54ea6a": {"seed": 7, "adapter": {"rank": 8, "alpha": 12}},
    "smollm2-135m-instruct_news_dora-r64-lr0.0003-s0_62cf276500": {
        "adapter": {"method": "dora", "rank": 64, "dropout": 0.1, "target_modules": "attention"}
    },
    "smollm2-135m-instruct_news_pissa-r16-lr0.0003-s0_2100ec1824": {
        "adapter": {"method": "pissa", "target_modules": "v_proj,q_proj"}
    },
    "smollm2-135m-instruct_news_full-lr1e-05-s0_fe98d884d2": {
        "adapter": {"method": "full", "rank": 4},
        "training": {"precision": "bf16", "learning_rate": 1e-5},
    },
    "Qwen-Qwen3-0.6B_news_lora-r16-lr0.001-s0_cc4370b348": {
        "model": "Qwen/Qwen3-0.6B",
        "model_revision": "c1899de289a04d12100db370d81485cdf75e47ca",
        "training": {
            "precision": "bf16",
            "learning_rate": 1e-3,
            "batch_size": 32,
            "micro_batch_size": 8,
            "context_length": 2048,
            "epochs": 3,
        },
    },
    "smollm2-135m-instruct_tickets_lora-r16-lr0.0003-s0_5263381520": {
        "dataset": "tickets",
        "dataset_revision": "ab" * 32,
        "training": {
            "precision": "fp32",
            "schedule": "linear",
            "warmup_ratio": 0.0,
            "weight_decay": 0.01,
            "max_grad_norm": 0.5,
            "train_bytes": 500_000,
        },
    },
    "smollm2-135m-instruct_news_lora-r16-lr0.0003-s0_7fcc5b339e": {
        "evaluation": {"validation_bytes": 50_000, "test_bytes": 60_000, "times": 1, "stride": 256}
    },
    "smollm2-135m-instruct_news_lora-r16-lr0.0003-s0_8b292baa82": {"quantization": "nf4"},
}
"""Never edit an id here: it names folders on other people's disks. Where numbers mean something else, SCIENCE_VERSION
rises, and then all of these do change."""


def pinned_spec(kind: type[RunSpec], values: dict[str, Any]) -> RunSpec:
    defaults = {
        "model": "smollm2-135m-instruct",
        "model_revision": "0.1.2:9f86d081",
        "dataset": "news",
        "dataset_revision": "1.2.0",
        "adapter": {},
        "training": {"precision": "fp32"},
        "evaluation": {},
        "seed": 0,
    }
    return kind.model_validate({**defaults, **values})


@pytest.mark.parametrize("identity", TEN)
def test_ids_are_what_they_always_were(identity: str) -> None:
    assert run_id(pinned_spec(RunSpec, TEN[identity])) == identity


def with_a_new_setting() -> type[RunSpec]:
    """Every section and the specification itself have one setting more, with a default; one section is new."""

    def more(kind: type[Frozen]) -> Any:
        return create_model(kind.__name__, __base__=kind, brand_new=(float, 0.5), another=(str | None, None))

    section = create_model("ChatSettings", __base__=Frozen, template=(str, "plain"))
    return create_model(
        "RunSpec",
        __base__=more(RunSpec),
        adapter=(more(AdapterSettings), ...),
        training=(more(TrainingSettings), ...),
        evaluation=(more(ScoringSettings), ...),
        chat=(section, section()),
    )


@pytest.mark.parametrize("identity", TEN)
def test_a_new_setting_with_a_default_renames_nothing(identity: str) -> None:
    kind = with_a_new_setting()
    assert run_id(pinned_spec(kind, TEN[identity])) == identity
    others = [
        {
            section: {
                **TEN[identity].get(section, {"precision": "fp32"} if section == "training" else {}),
                "brand_new": 1,
            }
        }
        for section in ("adapter", "training", "evaluation")
    ]
    others += [{"brand_new": 1}, {"chat": {"template": "chatml"}}]
    ids = [run_id(pinned_spec(kind, {**TEN[identity], **other})) for other in others]
    assert len({identity, *ids}) == 6


def test_a_changed_default_neither_renames_a_run_nor_gives_two_one_id() -> None:
    """Someone makes 32 the default rank: rank 16 keeps its id, and rank 32 has the id that it always had."""
    changed = create_model("AdapterSettings", __base__=AdapterSettings, rank=(int, 32))
    kind = create_model("RunSpec", __base__=RunSpec, adapter=(changed, ...))
    assert run_id(pinned_spec(kind, {"adapter": {"rank": 16}})) == next(iter(TEN))
    ranks_of_32 = {run_id(pinned_spec(kind, {})), run_id(pinned_spec(RunSpec, {"adapter": {"rank": 32}}))}
    assert len(ranks_of_32) == 1


def test_every_setting_is_frozen_with_the_value_that_is_left_out() -> None:
    """A new setting is added to LEFT_OUT with the value that means what was done before it existed."""
    sections = {"adapter": AdapterSettings, "training": TrainingSettings, "evaluation": ScoringSettings, "": RunSpec}
    for section, kind in sections.items():
        optional = {name for name, field in kind.model_fields.items() if not field.is_required()} - {"precision"}
        assert set(LEFT_OUT[section]) == optional, section
    assert set(LEFT_OUT) == set(sections)


def test_what_only_measures_is_no_part_of_a_run() -> None:
    measured = make_spec(evaluation=EvaluationSettings(also_on=("prose", "./own.txt"), samples=9))
    assert measured == make_spec()
    assert run_id(measured) == run_id(make_spec())


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"adapter": {"method": "full", "rank": 8}}, {"adapter": {"method": "full", "rank": 16, "alpha": "1r"}}),
        ({"adapter": {"method": "full"}}, {"adapter": {"method": "full", "dropout": 0.1, "target_modules": "mlp"}}),
        ({"adapter": {"rank": 8, "alpha": "2r"}}, {"adapter": {"rank": 8, "alpha": 16}}),
        ({"adapter": {"rank": 8, "alpha": "0.5r"}}, {"adapter": {"rank": 8, "alpha": 4.0}}),
        ({"adapter": {"target_modules": "q_proj,v_proj"}}, {"adapter": {"target_modules": "v_proj, q_proj"}}),
        ({"evaluation": {"stride": 512}}, {"evaluation": {"stride": None}}),
        (
            {"training": {"precision": "fp32", "micro_batch_size": 64}},
            {"training": {"precision": "fp32", "micro_batch_size": 16}},
        ),
    ],
)
def test_settings_that_mean_nothing_or_the_same_make_one_run(one: dict[str, Any], same: dict[str, Any]) -> None:
    assert run_id(pinned_spec(RunSpec, one)) == run_id(pinned_spec(RunSpec, same))


def test_settings_of_an_adapter_do_matter_where_there_is_one() -> None:
    different: list[dict[str, Any]] = [
        {},
        {"alpha": 16},
        {"alpha": "1r", "rank": 32},
        {"alpha": 32, "rank": 8},
        {"rank": 8},
        {"target_modules": "attention"},
        {"target_modules": "q_proj"},
        {"dropout": 0.1},
        {"method": "full"},
    ]
    ids = {run_id(pinned_spec(RunSpec, {"adapter": values})) for values in different}
    assert len(ids) == len(different)


def test_repetitions_of_a_configuration_differ_in_seed_and_scoring_alone() -> None:
    ours = configuration_of(make_spec())
    assert configuration_of(make_spec(seed=4, evaluation=ScoringSettings(times=1))) == ours
    for change in ({"quantization": "nf4"}, {"model_revision": "x"}, {"adapter": AdapterSettings(rank=9)}):
        assert configuration_of(make_spec(**change)) != ours


def test_a_base_is_found_by_how_it_is_loaded_too() -> None:
    plain, quantised = BaseVariant.of(make_spec()), BaseVariant.of(make_spec(quantization="nf4"))
    assert plain == BaseVariant("gpt2", "abc", "fp32", "none")
    assert len({plain, quantised, BaseVariant.of(make_spec(training=TrainingSettings(precision="bf16")))}) == 3
    assert (plain.loading, quantised.loading) == ("fp32", "fp32-nf4")


def test_a_new_meaning_of_numbers_makes_other_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_id(make_spec())
    monkeypatch.setattr(lorabench.experiment.identity, "SCIENCE_VERSION", 10**6)
    assert run_id(make_spec()) != before


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


def test_a_cool_down_means_nothing_to_other_schedules() -> None:
    def identity(schedule: str, decay_ratio: float) -> str:
        training = {"precision": "fp32", "schedule": schedule, "decay_ratio": decay_ratio}
        return run_id(make_spec(training=training))

    assert identity("cosine", 0.5) == identity("cosine", 0.2)
    assert identity("wsd", 0.5) != identity("wsd", 0.2)
