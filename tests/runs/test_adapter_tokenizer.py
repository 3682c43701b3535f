"""An adapter that was trained with added tokens brings its tokenizer, and is scored with it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from lorabench.runs.evaluation import evaluate

TEXT = "The river runs by the old stone bridge and the river is wide."


def test_added_tokens_are_scored_with_their_embeddings(
    tiny_model: Callable[[str], Path], cache: Path, tmp_path: Path
) -> None:
    base, folder = tiny_model("pythia"), tmp_path / "adapter"
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.add_tokens(["river runs"])
    added = tokenizer.token_to_id("river runs")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(
        r=2,
        target_modules=["query_key_value"],
        trainable_token_indices=[added],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    wrapped = peft.get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "token_adapter" in name and parameter.requires_grad:
            torch.nn.init.normal_(parameter.data)
    wrapped.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    shutil.copy(base / "tokenizer_config.json", folder)
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert added in ids
    row = torch.tensor([[0, *ids]])
    with torch.no_grad():
        logits = wrapped.eval()(row).logits[0, :-1]
    nats = float(torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum"))
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": TEXT}), encoding="utf-8")
    scored = evaluate(str(base), tmp_path / "text.jsonl", adapter=folder, device="cpu", precision="fp32")
    assert scored["num_tokens"] == len(ids)
    assert scored["negative_log_likelihood"] == pytest.approx(nats, rel=1e-5)
    assert scored["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(TEXT), rel=1e-5)
    (folder / "tokenizer.json").unlink()
    assert evaluate(str(base), tmp_path / "text.jsonl", adapter=folder, device="cpu")["num_tokens"] > len(ids)
