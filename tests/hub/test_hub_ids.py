"""Models by their hub id: planned from metadata alone, then fetched, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from tests.hub import model_repositories
from tests.hub.conftest import GOOD_TOKEN, OTHER_TOKEN, Worker
from tests.hub.corpora import texts
from tests.hub.server import HubRepository, LocalHub

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "ours.jsonl"
    path.write_text("\n".join(json.dumps({"text": row}) for row in texts("ours", 60)), encoding="utf-8")
    return path


def experiment(text: Path, *models: str) -> dict[str, Any]:
    training = {"context_length": 32, "batch_size": 2, "train_bytes": 3000, "precision": "fp32"}
    return {"name": "x", "models": [*models], "datasets": [str(text)], "adapter": {"rank": 2}, "training": training}


def copy(hub: LocalHub, of: str, name: str, **changes: bytes | None) -> HubRepository:
    """A repository with the files of another; `changes` by name, where a dot is two underscores."""
    files = dict(hub.repositories["model", of].branches["main"])
    for file, content in changes.items():
        if content is None:
            files.pop(file.replace("__", "."))
        else:
            files[file.replace("__", ".")] = content
    return hub.add(HubRepository("model", name, {"main": files}))


def test_a_plan_is_that_of_the_fetched_model(
    start_worker: Callable[..., Worker], hub_with_models: LocalHub, text: Path
) -> None:
    worker = start_worker()
    for reference, family in (("openai-community/gpt2", "gpt2"), ("google/gemma-2b", "gemma"), (SMOLLM2, "llama")):
        planned = worker.ok("plan", experiment=experiment(text, reference), token=GOOD_TOKEN)
        found = planned[reference]
        assert (found["folder"], found["revision"], found["pinned"]) == (None, "unpinned", False)
        assert found["family"] == family
        assert not [path for path in worker.home.rglob("*.safetensors") if reference.replace("/", "--") in str(path)]
        fetched = worker.ok("model", name=reference, token=GOOD_TOKEN)
        assert found["shape"]["linears"] == fetched["linears"]
        assert found["shape"]["num_parameters"] == fetched["num_parameters"]
        folder = Path(fetched["folder"])
        assert found["missing_bytes"] == sum(path.stat().st_size for path in folder.iterdir())
        again = worker.ok("plan", experiment=experiment(text, reference), token=GOOD_TOKEN)
        assert again["run_ids"] == planned["run_ids"]
        assert (again[reference]["missing_bytes"], again[reference]["folder"]) == (0, str(folder))


def test_a_plan_costs_kilobytes_and_the_second_one_request(
    worker: Worker, hub_with_models: LocalHub, text: Path
) -> None:
    files = hub_with_models.repositories["model", SMOLLM2].branches["main"]
    config = json.loads(files["config.json"]) | {"vocab_size": 60_000}
    name = "model.embed_tokens.weight"
    torch.manual_seed(0)
    weights = {name: torch.zeros(60_000, 24)} | {
        f"model.layers.{layer}.mlp.up_proj.weight": torch.zeros(64, 24) for layer in range(2)
    }
    copy(
        hub_with_models,
        SMOLLM2,
        "us/wide",
        config__json=json.dumps(config).encode(),
        model__safetensors=save(weights, {"format": "pt"}),
    )
    sent = hub_with_models.bytes_sent("/storage/")
    answer = worker("plan", experiment=experiment(text, "us/wide"))
    assert answer["ok"]["us/wide"]["missing_bytes"] > 5_000_000
    assert answer["seconds"] < 10
    assert hub_with_models.bytes_sent("/storage/") - sent < 110_000
    before = len(hub_with_models.requests)
    worker.ok("plan", experiment=experiment(text, "us/wide"))
    asked = [request.path for request in hub_with_models.requests[before:]]
    assert len(asked) == 1
    assert asked[0].startswith("/api/models/us/wide")


def test_offline_a_plan_is_as_before_or_says_what_to_do(
    start_worker: Callable[..., Worker], hub_with_models: LocalHub, text: Path
) -> None:
    online = start_worker()
    seen = online.ok("plan", experiment=experiment(text, SMOLLM2))
    commit = hub_with_models.repositories["model", SMOLLM2].commit("main")
    pinned = online.ok("plan", experiment=experiment(text, f"{SMOLLM2}@{commit}"))
    online.ok("model", name="openai-community/gpt2")
    offline = start_worker(home=online.home, HF_HUB_OFFLINE="1")
    before = len(hub_with_models.requests)
    assert offline.ok("plan", experiment=experiment(text, SMOLLM2)) == seen
    assert offline.ok("plan", experiment=experiment(text, f"{SMOLLM2}@{commit}")) == pinned
    assert pinned[f"{SMOLLM2}@{commit}"]["revision"] == commit
    assert pinned[f"{SMOLLM2}@{commit}"]["pinned"] is True
    cached = offline.ok("plan", experiment=experiment(text, "openai-community/gpt2"))
    assert cached["openai-community/gpt2"]["missing_bytes"] == 0
    unknown = offline("plan", experiment=experiment(text, "EleutherAI/pythia-410m"))
    assert "HF_HUB_OFFLINE is set, and of model EleutherAI/pythia-410m neither sizes nor weights" in unknown["error"]
    fetched = offline("model", name=SMOLLM2)
    assert "is not (wholly) in" in fetched["error"]
    assert len(hub_with_models.requests) == before


def test_owners_and_revisions_are_kept_apart(worker: Worker, hub_with_models: LocalHub, text: Path) -> None:
    main = hub_with_models.repositories["model", SMOLLM2].branches["main"]
    gpt2 = hub_with_models.repositories["model", "openai-community/gpt2"].branches["main"]
    hub_with_models.add(HubRepository("model", "we/same", {"main": main, "step1": main, "step2": gpt2}))
    hub_with_models.add(HubRepository("model", "they/same", {"main": gpt2}))
    names = ["we/same", "they/same", "we/same@step1", "we/same@step2"]
    planned = worker.ok("plan", experiment=experiment(text, *names))
    assert [planned[name]["family"] for name in names] == ["llama", "gpt2", "llama", "gpt2"]
    assert [planned[name]["revision"] for name in names] == ["unpinned", "unpinned", "step1", "step2"]
    assert len(set(planned["run_ids"])) == 4
    located = worker.ok("model", name="we/same@step2")
    assert located["revision"] == hub_with_models.repositories["model", "we/same"].commit("step2")


@pytest.mark.parametrize(("token", "said"), [(None, "then set HF_TOKEN"), (OTHER_TOKEN, "has no access to it")])
def test_a_gated_model_names_its_licence(
    worker: Worker, hub_with_models: LocalHub, text: Path, token: str | None, said: str
) -> None:
    gemma = hub_with_models.repositories["model", "google/gemma-2b"]
    hub_with_models.add(HubRepository("model", "us/gated", gemma.branches, gated={GOOD_TOKEN}))
    answer = worker("plan", experiment=experiment(text, "us/gated"), token=token)
    assert f"accept its licence at {hub_with_models.url}/us/gated" in answer["error"]
    assert said in answer["error"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config__json": b'{"model_type": "t5"}'}, "it is an encoder-decoder model (t5)"),
        ({"config__json": b'{"model_type": "x", "is_encoder_decoder": true}'}, "it is an encoder-decoder model (x)"),
        ({"config__json": b'{"model_type": "bert"}'}, "it is an encoder (bert), whose tokens see those after them"),
        ({"config__json": b'{"model_type": "gpt2"}'}, "n_layer"),
        ({"config__json": b"[]"}, "should hold one JSON object"),
        ({"model__safetensors": None, "pytorch_model__bin": b"x"}, "only safetensors are read"),
        ({"model__safetensors": b"x" * 100}, "us/odd"),
        ({"tokenizer__json": None, "vocab__json": None}, "has no tokenizer"),
        ({"config__json": None}, "has no config.json"),
    ],
)
def test_what_is_no_causal_model_is_refused_in_the_plan(
    worker: Worker, hub_with_models: LocalHub, text: Path, changes: dict[str, Any], said: str
) -> None:
    copy(hub_with_models, SMOLLM2, "us/odd", **changes)
    sent = hub_with_models.bytes_sent("/storage/")
    answer = worker("plan", experiment=experiment(text, "us/odd"))
    assert said in answer["error"]
    assert (answer["kind"], answer["exit_code"], "\n" in answer["error"]) == ("ModelError", 2, False)
    assert hub_with_models.bytes_sent("/storage/") - sent < 110_000


def test_what_is_not_there_is_one_sentence(worker: Worker, hub_with_models: LocalHub, text: Path) -> None:
    for reference, said in (
        ("nobody/none", "there is no model nobody/none"),
        (f"{SMOLLM2}@v9", f"model {SMOLLM2} has no revision v9"),
    ):
        answer = worker("plan", experiment=experiment(text, reference))
        assert said in answer["error"]
        assert answer["exit_code"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["today", "before"])
def test_of_a_model_of_more_than_text_the_text_model_is_used(
    worker: Worker, hub_with_models: LocalHub, text: Path, layout: str
) -> None:
    hub_with_models.add(model_repositories.wrapped_gemma3(layout))
    planned = worker.ok("plan", experiment=experiment(text, f"us/gemma-3-{layout}"))[f"us/gemma-3-{layout}"]
    assert planned["family"] == "gemma3_text"
    loaded = worker.ok("load", name=f"us/gemma-3-{layout}")
    assert loaded["class"] == "Gemma3ForCausalLM"
    assert loaded["num_parameters"] == planned["shape"]["num_parameters"]
    assert {path: list(size) for path, size in loaded["linears"].items()} == planned["shape"]["linears"]
    own = model_repositories.wrapped_gemma3(layout).branches["main"]["model.safetensors"]
    from safetensors.torch import load

    stored = {name: tensor for name, tensor in load(own).items() if name.endswith("embed_tokens.weight")}
    assert loaded["embedding_sum"] == pytest.approx(float(next(iter(stored.values())).sum()), rel=1e-6)


@pytest.mark.slow
def test_records_say_the_commit(worker: Worker, hub_with_models: LocalHub, text: Path, tmp_path: Path) -> None:
    record = worker.ok("run", experiment=experiment(text, SMOLLM2), output_dir=str(tmp_path / "out"))
    commit = hub_with_models.repositories["model", SMOLLM2].commit("main")
    assert record["spec"]["model"] == record["model"]["name"] == SMOLLM2
    assert (record["spec"]["model_revision"], record["model"]["revision"]) == ("unpinned", commit)
    assert (record["model"]["licence"], record["model"]["pinned"], record["status"]) == (
        "apache-2.0",
        False,
        "completed",
    )
    adapter = next((tmp_path / "out").rglob("adapter_config.json"))
    assert json.loads(adapter.read_text())["base_model_name_or_path"] == SMOLLM2
