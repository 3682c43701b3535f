"""EVA's start against numpy on what Transformers' own modules were given, and against PEFT's own start."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from transformers import AutoModelForCausalLM

from lorabench.core.errors import ConfigError
from lorabench.methods import eva
from lorabench.methods.attach import attach
from lorabench.models.base import FrozenBase, load_base
from lorabench.tokens.packing import Row, Segment
from tests.fast.fast_cases import packed, settings
from tests.marks import slow

TinyModel = Callable[[str], Path]
Matrix = npt.NDArray[np.float64]
RANK = 4


def segments(vocabulary: int) -> list[Segment]:
    """Some tokens far more frequent than others, as in a text; of one segment only a part is trained on."""
    generator = np.random.default_rng(0)
    ids = [np.minimum(generator.zipf(1.5, length + 1), vocabulary - 1).astype(np.int32) for length in (32, 20, 12, 32)]
    return [Segment(index, tokens, num_unscored=15 * (index == 3)) for index, tokens in enumerate(ids)]


def begun(base: FrozenBase, rows: list[Row], **changes: Any) -> dict[str, Matrix]:
    """Each layer's A after the start, [rank, inputs]."""
    adapter = attach(base, settings(method="eva", rank=RANK, **changes), seed=0)
    adapter.begin(iter(rows))
    assert base.execution.kind == "fast"
    assert all(not parameter.any() for name, parameter in adapter.named_parameters() if "lora_B" in name)
    return firsts(base.model)


def firsts(model: Any) -> dict[str, Matrix]:
    found = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    return {name: module.lora_A["default"].weight.detach().double().numpy() for name, module in found.items()}


def inputs_by_hooks(model: Any, paths: Mapping[str, Any], chosen: list[Segment]) -> dict[str, Matrix]:
    """What a model's modules are given at each place with a target, each segment by itself."""
    given: dict[str, list[Matrix]] = {path: [] for path in paths}

    def keep(path: str, first: int, module: Any, inputs: Any, output: Any) -> None:
        given[path].append(inputs[0][0, first:].double().numpy())

    for segment in chosen:
        keeping = {path: functools.partial(keep, path, segment.num_unscored) for path in paths}
        handles = [model.get_submodule(path).register_forward_hook(hook) for path, hook in keeping.items()]
        with torch.no_grad():
            model(input_ids=torch.from_numpy(segment.tokens[:-1]).long()[None], use_cache=False)
        for handle in handles:
            handle.remove()
    return {path: np.concatenate(parts) for path, parts in given.items()}


def smallest_cosine(first: Matrix, second: Matrix) -> float:
    """Of the principal angles between the spaces that the rows span."""
    bases = [np.linalg.qr(matrix.T)[0] for matrix in (first, second)]
    return float(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).min())


@pytest.mark.parametrize(
    ("family", "quantization"),
    [("smollm2", "none"), ("gpt2", "none"), slow("pythia", "none"), slow("smollm2", "nf4"), slow("smollm2", "fp8")],
)
def test_the_start_is_what_numpy_finds_in_the_inputs(tiny_model: TinyModel, family: str, quantization: Any) -> None:
    if quantization == "nf4":
        pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    folder = tiny_model(family)
    base, other = (load_base(folder, precision="fp32", device="cpu", quantization=quantization) for _ in range(2))
    chosen = segments(base.vocabulary_size)
    batch = packed([(9, 13, 2)], base.vocabulary_size)
    before = base.token_nll(batch)
    found = begun(base, [chosen[:1], chosen[1:3], chosen[3:]])
    assert torch.allclose(base.token_nll(batch), before, atol=1e-6)
    for path, inputs in inputs_by_hooks(other.model, found, chosen).items():
        wanted = np.linalg.svd(inputs - inputs.mean(axis=0), full_matrices=False)[2][:RANK]
        assert np.allclose(found[path] @ found[path].T, np.eye(RANK), atol=1e-5), path
        assert np.allclose(np.abs(np.diag(found[path] @ wanted.T)), 1.0, atol=1e-3), path


def test_the_start_spans_what_pefts_own_does(tiny_model: TinyModel) -> None:
    folder = tiny_model("smollm2")
    base = load_base(folder, precision="fp32", device="cpu")
    ids = np.stack([segments(base.vocabulary_size)[index].tokens for index in (0, 3)])
    found = begun(base, [[Segment(index, tokens)] for index, tokens in enumerate(ids)])
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(
        r=RANK,
        target_modules=list(found),
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=1.0),
        task_type="CAUSAL_LM",
    )
    theirs = get_peft_model(plain, config, low_cpu_mem_usage=True)
    batches: Any = [{"input_ids": torch.from_numpy(ids[:, :-1]).long()}]
    initialize_lora_eva_weights(theirs, batches, show_progress_bar=False)
    for path, wanted in firsts(theirs.get_base_model()).items():
        assert smallest_cosine(found[path], wanted) > 0.99, path


def test_layers_in_passes_of_their_own_have_the_same_start(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(tiny_model("smollm2"), precision="fp32", device="cpu")
    rows = [[segment] for segment in segments(base.vocabulary_size)]
    adapter = attach(base, settings(method="eva", rank_pattern={"q_proj": 2}), seed=0)
    found = []
    for eva_bytes in (eva.MAX_BYTES, 1):
        monkeypatch.setattr(eva, "MAX_BYTES", eva_bytes)
        state = torch.get_rng_state()
        adapter.begin(iter(rows))
        assert torch.equal(torch.get_rng_state(), state)
        found.append(firsts(base.model))
    assert all(np.array_equal(weight, found[1][path]) for path, weight in found[0].items())
    assert all(len(weight) == (2 if "q_proj" in path else 4) for path, weight in found[0].items())


def test_no_more_rows_are_taken_than_asked_for_and_too_few_tokens_are_refused(tiny_model: TinyModel) -> None:
    base = load_base(tiny_model("smollm2"), precision="fp32", device="cpu")
    rows = iter([[Segment(0, np.arange(1, 4, dtype=np.int32))], *([segment] for segment in segments(40))])
    adapter = attach(base, settings(method="eva", rank=RANK, eva_rows=1), seed=0)
    with pytest.raises(ConfigError, match=r"adapter.eva_rows: 1 rows hold 2 tokens .* too few for rank 4; give more"):
        adapter.begin(rows)
    assert len(list(rows)) == 4
