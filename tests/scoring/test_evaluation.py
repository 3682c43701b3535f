"""One model on one file, as a stranger checks it: by a loop of their own over Transformers' and PEFT's own classes."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorabench.cli.main import app
from lorabench.core.device import choose_device
from lorabench.core.errors import LorabenchError
from lorabench.runs.evaluation import Manner, evaluate, score_texts
from lorabench.scoring.export import export_split
from tests.conftest import FAMILIES

TinyModel = Callable[[str], Path]

KEYS = (
    "negative_log_likelihood",
    "num_tokens",
    "num_bytes",
    "num_words",
    "bits_per_byte",
    "token_perplexity",
    "word_perplexity",
    "num_documents",
)


def long_texts() -> list[str]:
    """Documents of up to a few hundred tokens, of characters that take one to four bytes."""
    draw = random.Random(0)
    pieces = [
        "word ",
        "naïve ",
        "你好",
        "\t",
        "\r\n",
        "\n\n",
        "🙂",
        "\u200b",
        "\u2003",
        "12345 ",
        "a\u0301",
        "<|endoftext|>",
    ]
    return ["".join(draw.choices(pieces, k=length)) for length in (1, 5, 20, 60, 130)]


def plain_sum(folder: Path, adapter: Path | None, texts: list[str], window: int, stride: int) -> tuple[float, int]:
    """Nats and tokens: every window by itself, all logits held, each token scored in the window that first has it.

    With a stride as long as the window nothing is seen twice; a shorter one fills each window with what came before.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    nats, num_tokens = 0.0, 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        num_tokens += len(ids)
        end = 0
        while end < len(ids):
            first = end
            end = min(len(ids), first + (window if first == 0 else stride))
            seen = ids[first if stride == window else max(0, end - window) : end]
            inputs = torch.tensor([[prefix, *seen[:-1]]])
            with torch.no_grad():
                likelihoods = model(inputs).logits[0].double().log_softmax(-1)
            for place in range(len(seen) - (end - first), len(seen)):
                nats -= float(likelihoods[place, seen[place]])
    return nats, num_tokens


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.mark.parametrize("stride", [None, 1, 7, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_long_documents_are_scored_as_documented(
    tiny_model: TinyModel, family: str, stride: int | None, tmp_path: Path
) -> None:
    texts = long_texts()
    result = evaluate(
        str(tiny_model(family)),
        write_jsonl(tmp_path / "a.jsonl", texts),
        context_length=16,
        stride=stride,
        precision="fp32",
    )
    nats, num_tokens = plain_sum(tiny_model(family), None, texts, 16, stride or 16)
    assert result["negative_log_likelihood"] == pytest.approx(nats, rel=1e-5)
    assert result["num_tokens"] == num_tokens
    assert result["num_bytes"] == sum(len(text.encode()) for text in texts)
    assert result["num_documents"] == len(texts)
    assert result["stride"] == (stride or 16)


def test_the_figures_follow_from_the_sums(tiny_model: TinyModel, tmp_path: Path) -> None:
    result = evaluate(str(tiny_model("smollm2")), write_jsonl(tmp_path / "a.jsonl", ["some words here", "é 🙂"]))
    nats = result["negative_log_likelihood"]
    assert set(KEYS) <= set(result)
    assert result["num_words"] == 5
    assert result["bits_per_byte"] == pytest.approx(nats / math.log(2) / result["num_bytes"])
    assert result["token_perplexity"] == pytest.approx(math.exp(nats / result["num_tokens"]))
    assert result["word_perplexity"] == pytest.approx(math.exp(nats / 5))
    assert result["context_length"] == 64, "the tiny model's own limit"


def test_a_figure_beyond_floats_is_null(tiny_model: TinyModel, tmp_path: Path) -> None:
    result = evaluate(str(tiny_model("smollm2")), write_jsonl(tmp_path / "a.jsonl", ["x" * 4000]))
    assert result["word_perplexity"] is None
    assert math.isfinite(result["bits_per_byte"])
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_is_scored_as_plain_peft_does(tiny_model: TinyModel, family: str, tmp_path: Path) -> None:
    texts = long_texts()
    data = write_jsonl(tmp_path / "a.jsonl", texts)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_model(family), dtype=torch.float32)
    config = LoraConfig(
        r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=family == "gpt2"
    )
    peft: Any = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    peft.save_pretrained(tmp_path / "adapter")
    chosen: dict[str, Any] = {"context_length": 32, "precision": "fp32"}
    result = evaluate(str(tiny_model(family)), data, adapter=tmp_path / "adapter", **chosen)
    nats, _ = plain_sum(tiny_model(family), tmp_path / "adapter", texts, 32, 32)
    assert result["negative_log_likelihood"] == pytest.approx(nats, rel=1e-5)
    base = evaluate(str(tiny_model(family)), data, **chosen)
    assert base["negative_log_likelihood"] != pytest.approx(nats, rel=1e-4), "the adapter has to matter"


def test_every_byte_of_a_text_file_but_its_blank_lines_is_scored(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    blocks = ["  indented\r\n\ttabbed\u2028x ", "é\u00a0\u200b", "a\x00b  "]
    path.write_bytes(("\ufeff" + "\r\n\r\n".join(blocks) + "\n \n\n").encode())
    result = evaluate(str(tiny_model("gpt2")), path)
    assert result["num_documents"] == 3
    assert result["num_bytes"] == sum(len(block.encode()) for block in blocks)


def test_the_kinds_of_files_agree(tiny_model: TinyModel, tmp_path: Path) -> None:
    texts = ["One document.", "Another, naïve one 🙂.\nIn two lines."]
    (tmp_path / "a.txt").write_text("\n\n".join(texts), encoding="utf-8")
    write_jsonl(tmp_path / "a.jsonl", texts)
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    results = [evaluate(str(tiny_model("pythia")), tmp_path / f"a.{kind}") for kind in ("txt", "jsonl", "parquet")]
    for result in results:
        del result["data"]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "smollm"}, "smollm2"),
        ({"model": "./nowhere"}, "no such folder"),
        ({"data": "nowhere.txt"}, "no such file"),
        ({"precision": "fp8"}, "accepted: auto, fp32, bf16, fp16"),
        ({"context_length": 65}, "reads 1 to 64 tokens"),
        ({"context_length": 0}, "reads 1 to 64 tokens"),
        ({"stride": 0}, "stride"),
        ({"adapter": "nowhere"}, "no adapter here"),
        ({"device": "tpu"}, "accepted here: cpu"),
    ],
)
def test_mistakes_are_one_sentence(tiny_model: TinyModel, tmp_path: Path, change: dict[str, Any], named: str) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", ["some text"])
    options: dict[str, Any] = {"model": str(tiny_model("smollm2")), "data": data} | change
    with pytest.raises(LorabenchError, match=named) as caught:
        evaluate(**options)
    assert "\n" not in str(caught.value)


def test_bfloat16_is_close_to_float32(tiny_model: TinyModel, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", long_texts())
    full, half = (evaluate(str(tiny_model("smollm2")), data, precision=name) for name in ("fp32", "bf16"))
    assert half["precision"] == "bf16"
    usual = choose_device().precision
    assert evaluate(str(tiny_model("smollm2")), data) == evaluate(str(tiny_model("smollm2")), data, precision=usual)
    assert half["bits_per_byte"] != full["bits_per_byte"]
    assert half["bits_per_byte"] == pytest.approx(full["bits_per_byte"], rel=5e-3)


def test_what_is_done_of_several_texts_and_models_is_told_of_the_whole(tiny_model: TinyModel, tmp_path: Path) -> None:
    texts = {name: long_texts()[:count] for name, count in (("short", 1), ("long", 3))}
    files = [write_jsonl(tmp_path / f"{name}.jsonl", texts[name]) for name in texts]
    told: list[tuple[str, float, float | None]] = []
    models = [(str(tiny_model(family)), None) for family in ("gpt2", "smollm2")]
    score_texts(models, files, Manner(context_length=32), lambda *said: told.append(said))
    scoring = [said for said in told if said[0].startswith("scoring")]
    names = [f"scoring {number} of 4: {file}" for number, file in enumerate(files * 2, 1)]
    assert list(dict.fromkeys(said[0] for said in scoring)) == names
    done = [said[1] for said in scoring]
    num_bytes = 2 * sum(len(text.encode()) for each in texts.values() for text in each)
    assert done == sorted(done)
    assert done[-1] == pytest.approx(num_bytes)
    assert {said[2] for said in scoring} == {num_bytes}


@pytest.mark.parametrize("split", [None, "test"])
def test_a_catalogue_corpus_is_scored_as_the_same_documents_in_a_file(
    tiny_model: TinyModel, tmp_path: Path, split: str | None
) -> None:
    model = str(tiny_model("smollm2"))
    file = tmp_path / "stories.jsonl"
    export_split("stories", split or "validation", file, max_bytes=6000)
    by_name = evaluate(model, "stories", split=split, max_bytes=6000, context_length=32)
    by_file = evaluate(model, file, context_length=32)
    assert {key: by_name[key] for key in KEYS} == {key: by_file[key] for key in KEYS}
    assert (by_name["data"], by_name["split"]) == ("stories", split or "validation")
    assert by_name["data_revision"]
    assert (by_file["split"], by_file["data_revision"]) == ("all of the file", None)


def test_the_command_says_which_split_it_scored(tiny_model: TinyModel, capfd: pytest.CaptureFixture[str]) -> None:
    chosen = ["--max-bytes", "3000", "--context-length", "32"]
    model = ["evaluate", "--model", str(tiny_model("smollm2"))]
    assert app([*model, "--data", "stories", *chosen], standalone_mode=False) in (None, 0)
    assert "\nsplit                      validation\n" in capfd.readouterr().out
    with pytest.raises(LorabenchError, match="Did you mean 'stories'"):
        app([*model, "--data", "storys"], standalone_mode=False)
