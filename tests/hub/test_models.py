"""The hub's models over HTTP, from repositories laid out as the real ones are."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorabench.models.catalog import get_model
from tests.hub.conftest import GOOD_TOKEN, OTHER_TOKEN, Worker
from tests.hub.server import Fault, HubRepository, LocalHub

TEXT = "The river runs by the old stone bridge, naïve café, 你好, 42."
CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "pythia-410m": "GPTNeoXForCausalLM",
    "gemma-2b": "GemmaForCausalLM",
    "smollm2-135m": "LlamaForCausalLM",
}


def entry(name: str, **changes: Any) -> dict[str, Any]:
    return get_model(name).model_dump(mode="json") | changes


def repository(hub: LocalHub, name: str) -> HubRepository:
    return hub.repositories["model", str(get_model(name).repository)]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_model_is_fetched_and_usable(worker: Worker, hub_with_models: LocalHub, name: str) -> None:
    there = repository(hub_with_models, name)
    fetched = worker.ok("fetch", entry=entry(name), token=GOOD_TOKEN)
    assert fetched["revision"] == there.commit("main")
    assert set(fetched["files"]) == {
        path
        for path in there.branches["main"]
        if "/" not in path and (path.endswith((".json", ".safetensors")) or path in ("merges.txt", "tokenizer.model"))
    }
    for path in fetched["files"]:
        assert (Path(fetched["folder"]) / path).read_bytes() == there.branches["main"][path]
    what, done, total = fetched["told"][-1]
    assert there.id in what
    assert done == total > 0
    used = worker.ok("use", folder=fetched["folder"], text=TEXT)
    assert used["class"] == CLASSES[name]
    assert used["round_trip"] == TEXT
    assert 3.0 < used["loss"] < 9.0
    assert (used["ids"][0] == 2 == used["bos"]) is (name == "gemma-2b")


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_locate_model_finds_it_and_reads_its_shape(worker: Worker, hub_with_models: LocalHub, name: str) -> None:
    located = worker.ok("model", name=name, token=GOOD_TOKEN)
    assert located["revision"] == repository(hub_with_models, name).commit("main")
    modules = get_model(name).linear_modules
    assert {path.split(".", path.count(".") - 1)[-1] for path in located["linears"]} >= {
        module.split(".")[-2] + "." + module.split(".")[-1] for module in modules
    }
    assert len(located["linears"]) == 2 * len(modules)
    assert located["num_parameters"] > 1000


def test_nothing_that_could_run_is_fetched(worker: Worker, hub_with_models: LocalHub) -> None:
    worker.ok("fetch", entry=entry("gpt2"))
    asked = {request.path for request in hub_with_models.requests if request.path.startswith("/openai-community/gpt2/")}
    assert any(path.endswith("/model.safetensors") for path in asked)
    assert not {path for path in asked if path.endswith((".bin", ".msgpack", ".tflite", ".onnx", ".py", ".gguf"))}
    assert not {path for path in asked if "/onnx/" in path}


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "is gated; accept its licence at {url}/google/gemma-2b, then set HF_TOKEN"),
        (OTHER_TOKEN, "the token in use has no access to it; accept its licence at {url}/google/gemma-2b"),
        ("hf_plantedplantedexpired", "refuses the token"),
    ],
)
def test_a_gated_model_says_what_to_do(
    start_worker: Callable[..., Worker], hub_with_models: LocalHub, token: str | None, said: str
) -> None:
    answer = start_worker()("fetch", entry=entry("gemma-2b"), token=token)
    assert answer["kind"] == "DownloadError"
    assert answer["exit_code"] == 1
    assert said.format(url=hub_with_models.url) in answer["error"]
    assert "\n" not in answer["error"]
    assert answer["seconds"] < 10


def test_a_simpler_hub_is_understood(start_worker: Callable[..., Worker], hub_with_models: LocalHub) -> None:
    worker = start_worker()
    hub_with_models.terse = True
    try:
        fetched = worker.ok("fetch", entry=entry("smollm2-135m"))
        refused = [worker("fetch", entry=entry("gemma-2b"), token=token)["error"] for token in (None, OTHER_TOKEN)]
    finally:
        hub_with_models.terse = False
    assert "model.safetensors" in fetched["files"]
    assert all(f"accept its licence at {hub_with_models.url}/google/gemma-2b" in error for error in refused)
    assert all("HF_TOKEN" in error for error in refused)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"repository": "nobody/none"}, "ModelError", "there is no model nobody/none on {url}, or it is private"),
        ({"revision": "v9"}, "ModelError", "model openai-community/gpt2 has no revision v9 on {url}"),
    ],
)
def test_what_is_not_there(
    worker: Worker, hub_with_models: LocalHub, changes: dict[str, Any], kind: str, said: str
) -> None:
    answer = worker("fetch", entry=entry("gpt2", **changes))
    assert answer["kind"] == kind
    assert answer["exit_code"] == 2
    assert said.format(url=hub_with_models.url) in answer["error"]


def test_a_private_repository_is_fetched_with_its_token(worker: Worker, hub_with_models: LocalHub) -> None:
    files = repository(hub_with_models, "gpt2").branches
    hub_with_models.add(HubRepository("model", "us/private", files, private={GOOD_TOKEN}))
    refused = worker("fetch", entry=entry("gpt2", repository="us/private"))
    assert "set HF_TOKEN if the repository is private" in refused["error"]
    assert worker.ok("fetch", entry=entry("gpt2", repository="us/private"), token=GOOD_TOKEN)["files"]


def test_weights_that_are_pickles_are_refused(worker: Worker, hub_with_models: LocalHub) -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": b"a pickle"}
    hub_with_models.add(HubRepository("model", "us/pickled", {"main": files}))
    answer = worker("fetch", entry=entry("gpt2", repository="us/pickled"))
    assert answer["kind"] == "ModelError"
    assert "no model.safetensors (it has pytorch_model.bin)" in answer["error"]
    assert hub_with_models.bytes_sent("us/pickled/resolve") == 0


def test_an_index_cannot_name_files_elsewhere(worker: Worker, hub_with_models: LocalHub) -> None:
    index = b'{"weight_map": {"a": "../../../../secret.safetensors"}}'
    files = {"config.json": b"{}", "model.safetensors.index.json": index, "model-00001-of-00001.safetensors": b"x"}
    hub_with_models.add(HubRepository("model", "us/outside", {"main": files}))
    answer = worker("fetch", entry=entry("gpt2", repository="us/outside"))
    assert "which is not a safetensors shard beside it" in answer["error"]


def test_both_kinds_of_weights_take_the_single_file(worker: Worker, hub_with_models: LocalHub) -> None:
    files = repository(hub_with_models, "smollm2-135m").branches["main"] | {
        "model-00001-of-00001.safetensors": b"unused",
        "model.safetensors.index.json": b"{}",
    }
    hub_with_models.add(HubRepository("model", "us/both", {"main": files}))
    fetched = worker.ok("fetch", entry=entry("smollm2-135m", repository="us/both"))
    assert "model-00001-of-00001.safetensors" not in fetched["files"]


def test_a_connection_cut_in_mid_file_is_resumed(worker: Worker, hub_with_models: LocalHub) -> None:
    header = b'{"a":{"dtype":"U8","shape":[24000000],"data_offsets":[0,24000000]}}'
    weights = len(header).to_bytes(8, "little") + header + random.Random(0).randbytes(24_000_000)
    files = {"config.json": b"{}", "model.safetensors": weights}
    hub_with_models.add(HubRepository("model", "us/large", {"main": files}))
    hub_with_models.faults.append(Fault("/storage/", times=1, cut_after=15_000_000, methods=("GET",)))
    fetched = worker.ok("fetch", entry=entry("gpt2", repository="us/large"))
    assert (Path(fetched["folder"]) / "model.safetensors").read_bytes() == weights
    resumed = [request for request in hub_with_models.requests if request.headers.get("range", "").endswith("-")]
    assert resumed
    assert resumed[-1].sent < len(weights)


@pytest.mark.slow
def test_a_hub_that_always_cuts_is_given_up_on_and_leaves_no_half_file(
    start_worker: Callable[..., Worker], hub_with_models: LocalHub
) -> None:
    fault = Fault("/storage/", times=1000, cut_after=0, methods=("GET",))
    hub_with_models.faults.append(fault)
    worker = start_worker()
    try:
        answer = worker("fetch", entry=entry("smollm2-135m"))
    finally:
        fault.times = 0
    assert answer["kind"] == "DownloadError"
    assert "keeps breaking the connection off" in answer["error"]
    assert answer["seconds"] < 30
    assert not list(worker.home.rglob("model.safetensors"))
    assert not [path for path in worker.home.rglob("*.incomplete") if path.stat().st_size]
    whole = worker.ok("fetch", entry=entry("smollm2-135m"))
    assert "model.safetensors" in whole["files"]


def test_a_cached_file_that_was_cut_short_is_fetched_again(
    start_worker: Callable[..., Worker], hub_with_models: LocalHub
) -> None:
    worker = start_worker()
    weights = Path(worker.ok("fetch", entry=entry("gpt2"))["folder"]) / "model.safetensors"
    whole = weights.read_bytes()
    os.truncate(weights.resolve(), 10_000)
    worker.ok("fetch", entry=entry("gpt2"))
    assert weights.read_bytes() == whole


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(worker: Worker, hub_with_models: LocalHub) -> None:
    hub_with_models.faults.append(Fault("/api/models/openai-community", times=2, status=503))
    assert worker.ok("fetch", entry=entry("gpt2"))["revision"]


def test_a_hub_that_keeps_failing_is_said_to(worker: Worker, hub_with_models: LocalHub) -> None:
    fault = Fault("/api/models/openai-community", times=1000, status=500)
    hub_with_models.faults.append(fault)
    try:
        answer = worker("fetch", entry=entry("gpt2"))
    finally:
        fault.times = 0
    assert answer["kind"] == "DownloadError"
    assert "is failing (500)" in answer["error"]
    assert answer["seconds"] < 10
