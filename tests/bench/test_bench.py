from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lorabench.bench.command import answer
from lorabench.bench.limit import Products
from lorabench.bench.measure import Rate
from lorabench.bench.request import Request
from lorabench.cli.views.view import make_view
from lorabench.core.device import choose_device
from lorabench.core.errors import InputError
from lorabench.fast.declarations import FAST_TYPES
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import freeze, load_base
from lorabench.models.by_hub_id import HubIdModel
from lorabench.models.catalog import list_models
from lorabench.models.entry import ModelEntry
from lorabench.models.loaded import LoadedLinears
from lorabench.models.planning import plan_model
from lorabench.models.random_weights import build, config_of_entry, fill, load_random
from lorabench.tokens.packing import Segment, make_batch


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "cache"))


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lorabench", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.alone
@pytest.mark.slow
def test_json_ends_in_one_line_of_what_programs_need(tiny_model: Callable[[str], Path]) -> None:
    done = run_bench(
        *("--model", str(tiny_model("smollm2")), "--rank", "4", "--context-length", "32", "--batch-size", "3"),
        *("--steps", "4", "--precision", "fp32", "--profile", "--json"),
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout.strip().splitlines()[-1])
    assert values["tokens_per_second"] > 0
    low, high = values["tokens_per_second_quartiles"]
    assert low <= values["tokens_per_second"] <= high
    assert 0.0 < values["share_of_limit"] < 1.5
    assert values["share_of_limit"] == pytest.approx(values["tokens_per_second"] / values["limit_tokens_per_second"])
    assert values["evaluation_tokens_per_second"] > 0
    assert (values["rank"], values["context_length"], values["batch_size"]) == (4, 32, 3)
    assert values["peak_memory_bytes"] > 100_000_000
    assert (values["execution_path"], values["weights"]) == ("fast", "its own")
    assert len(values["losses"]) == 6
    assert values["profile_seconds"]["matrix products"] > 0


@pytest.mark.slow
def test_a_table_covers_contexts_and_batches(tiny_model: Callable[[str], Path]) -> None:
    request = Request(str(tiny_model("gpt2")), rank=4, num_steps=1, table=True, precision="bf16")
    with make_view(sys.stderr) as view:
        measured = answer(request, view)
    points = {(result.point.context_length, result.point.batch_size) for result in measured.results}
    assert points == {(64, 1), (64, 2)}, "the model reads no more than 64 tokens"
    assert {result.precision for result in measured.results} == {"bf16"}
    assert len(measured.to_json()["rows"]) == 2
    assert len(replace(request, model="gpt2", rank=16).points) == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "gtp2"], ["gtp2", "Did you mean", "gpt2"]),
        (["--model", "gpt2", "--random-weights", "--context-length", "2048"], ["2048", "gpt2", "1024"]),
        (["--model", "gpt2", "--precision", "fp8"], ["fp8", "fp32, bf16"]),
        (["--model", "gpt2", "--random-weights", "--rank", "2000"], ["rank", "2000", "768"]),
        (["--model", "/nowhere/model"], ["/nowhere/model", "no such folder"]),
        (["--model", "gpt2", "--steps", "0"], ["steps"]),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence(arguments: list[str], words: list[str]) -> None:
    done = run_bench(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr


def test_bfloat16_without_units_works_and_says_that_it_is_slow(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = replace(choose_device("cpu"), supports_bf16=False)
    with make_view(sys.stderr) as view:
        answer(
            Request(str(tiny_model("gpt2")), rank=2, num_steps=1, context_length=16, precision="bf16", device=device),
            view,
        )
    assert "no bfloat16 units" in capsys.readouterr().err


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.name)
def test_random_weights_have_the_catalogues_size(entry: object) -> None:
    with torch.device("meta"):
        model = build(config_of_entry(entry), torch.bfloat16)  # type: ignore[arg-type]
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.num_parameters  # type: ignore[attr-defined]
    linears = plan_model(entry.name).shape.linears  # type: ignore[attr-defined]
    assert model.config.model_type in FAST_TYPES
    modules = dict(model.named_modules())
    for path, (inputs, outputs) in linears.items():
        assert sorted(modules[path].weight.shape) == sorted((inputs, outputs)), path


def sizes_of(model: Any) -> dict[str, Any]:
    """What an entry states of a model."""
    config, linears = model.config, LoadedLinears(model).linears
    first = {path: size for path, size in linears.items() if ".0." in path}
    layer_path = next(iter(first)).split(".0.")[0]
    return {
        "family": config.model_type,
        "num_parameters": model.num_parameters(),
        "num_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "vocabulary_size": config.vocab_size,
        "max_context_length": config.max_position_embeddings,
        "layer_path": layer_path,
        "linear_modules": {path.split(".0.", 1)[1]: size for path, size in first.items()},
    }


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("model_type", sorted(FAST_TYPES))
def test_every_fast_family_has_random_weights(model_type: str, is_tied: bool) -> None:
    """An entry of a user's own catalogue says enough to make the model that Transformers makes of its config.json."""
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 500,
        "max_position_embeddings": 64, "pad_token_id": 0, "tie_word_embeddings": is_tied,
        **({"n_inner": 96} if model_type == "gpt2" else {"intermediate_size": 96}),
        **({} if model_type in ("gpt2", "gpt_neox") else {"num_key_value_heads": 2, "head_dim": 8}),
    }  # fmt: skip
    with torch.device("meta"):
        wanted = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes))
    entry = list_models()[0].model_copy(update={**sizes_of(wanted), "config": {"head_dim": 8}})
    assert isinstance(entry, ModelEntry)
    model = build(config_of_entry(entry), torch.float32)
    assert {name: weight.shape for name, weight in model.named_parameters()} == {
        name: weight.shape for name, weight in wanted.named_parameters()
    }
    fill(model, seed=0)
    base = freeze(model, torch.device("cpu"), "fp32")
    assert base.execution.kind == "fast"
    nats = base.token_nll(make_batch([[Segment(0, np.arange(20, dtype=np.int32))]]))
    assert float(nats.mean()) == pytest.approx(np.log(500), rel=0.1)


def test_random_weights_depend_on_the_seed_alone() -> None:
    plan = plan_model("gpt2-mini")
    batch = make_batch([[Segment(0, np.arange(20, dtype=np.int32))]])
    scores = []
    for seed in (0, 0, 1):
        base = load_random(plan, precision="fp32", device="cpu", seed=seed)
        assert base.execution.kind == "fast"
        scores.append(base.token_nll(batch))
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
    assert float(scores[0].mean()) == pytest.approx(np.log(plan.shape.vocabulary_size), rel=0.1)


def test_the_hubs_configuration_is_enough(tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_model(str(tiny_model("pythia")))
    config = json.loads((tiny_model("pythia") / "config.json").read_bytes())
    monkeypatch.setattr(HubIdModel, "config_json", lambda self: config)
    on_the_hub = replace(plan, folder=None, source=HubIdModel.model_construct(name="owner/name"))
    assert load_random(on_the_hub, precision="fp32", device="cpu").num_parameters == plan.shape.num_parameters


def test_the_limit_adds_up_what_a_step_needs() -> None:
    products = Products(100, linear=4.0, head=2.0, adapters=3.0, attention=1.0)
    assert products.training_tokens_per_second == 10.0
    assert products.evaluation_tokens_per_second == pytest.approx(100 / (3.0 + 4.0 / 3))


def test_a_rate_is_a_median_with_quartiles() -> None:
    rate = Rate.of([10] * 5, [1.0, 2.0, 4.0, 5.0, 10.0])
    assert (rate.low, rate.median, rate.high) == (2.0, 2.5, 5.0)
    assert Rate.of([10], [2.0]) == Rate(5.0, 5.0, 5.0)


def test_a_model_of_an_unknown_family_has_no_random_weights() -> None:
    entry = list_models()[0].model_copy(update={"family": "mamba"})
    with pytest.raises(InputError, match="no random weights can be made for the family mamba; accepted are gemma, "):
        config_of_entry(entry)
    entry = entry.model_copy(update={"family": "llama", "linear_modules": {"self_attn.o_proj": (64, 64)}})
    with pytest.raises(InputError, match=r"its entry lacks the linear module self_attn\.k_proj"):
        config_of_entry(entry)


@pytest.mark.alone
@pytest.mark.slow
def test_short_documents_train_as_fast_as_a_long_one(tiny_model: Callable[[str], Path]) -> None:
    """Attention costs only what lies within documents: the same tokens, in one document or in many."""
    import time

    from lorabench.models.catalog import get_model

    del tiny_model
    base = load_random(plan_model(get_model("pythia-mini").name), precision="fp32", device="cpu")
    adapter = attach(base, AdapterSettings(rank=8), seed=0)
    ids = np.random.default_rng(0).integers(0, 4096, 2049).astype(np.int32)
    whole = make_batch([[Segment(0, ids)]])
    pieces = make_batch([[Segment(0, ids[start : start + 65]) for start in range(0, 2048, 64)]])
    seconds: dict[str, list[float]] = {"whole": [], "pieces": []}
    for _ in range(7):
        for name, batch in (("whole", whole), ("pieces", pieces)):
            started = time.perf_counter()
            torch.autograd.backward(base.loss(batch))
            seconds[name].append(time.perf_counter() - started)
            for parameter in adapter.parameters:
                parameter.grad = None
    assert whole.num_scored == pieces.num_scored == 2048
    assert np.median(seconds["pieces"]) < 1.1 * np.median(seconds["whole"])


@pytest.mark.alone
@pytest.mark.slow
def test_training_is_faster_than_the_usual_stack(tmp_path: Path) -> None:
    """The comparison itself, short: its figures are ratios, so that a slow machine is no failure."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            *(sys.executable, str(root / "benchmarks" / "compare_with_peer.py"), "--model", "gpt2-mini"),
            *("--random-weights", "--contexts", "128", "--batch-sizes", "4", "--steps", "8", "--rounds", "2"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LORABENCH_CACHE": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout.strip().splitlines()[-1])["rows"]
    assert row["speed_ratio"] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gpt2-mini", "pythia-mini", "gemma-mini"])
def test_many_steps_in_bfloat16_end_where_those_of_peft_end(model: str) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "compare_losses.py"
    command = [
        *(sys.executable, str(script), "--model", model, "--random-weights", "--precision", "bf16"),
        *("--context-length", "64", "--steps", "80"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["last_losses"][1] < result["first_losses"][1] - 0.1, "nothing was learned"
    assert abs(result["last_difference"]) < 0.005


def test_loading_needs_no_second_copy_of_the_weights(tiny_model: Callable[[str], Path]) -> None:
    base = load_base(tiny_model("gpt2"), precision="fp32", device="cpu")
    head, embedding = base.model.get_output_embeddings().weight, base.model.get_input_embeddings().weight
    assert head.data_ptr() == embedding.data_ptr()
