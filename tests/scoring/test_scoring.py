from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lorabench.corpora.documents import make_document
from lorabench.models.base import load_base
from lorabench.scoring.documents import score_documents
from lorabench.tokens.packing import Tokens
from tests.conftest import FAMILIES

PREFIX = 1


def plain_nll(model: torch.nn.Module, tokens: Tokens, context_length: int, stride: int | None) -> float:
    """One document, window by window, one token at a time from full logits: slow and plain."""
    total, scored_to = 0.0, 0
    ids = tokens.tolist()
    while scored_to < len(ids):
        end = min(len(ids), scored_to + (context_length if scored_to == 0 or stride is None else stride))
        start = scored_to if stride is None else max(0, end - context_length)
        window = [PREFIX, *ids[start:end]]
        with torch.no_grad():
            logits = model(torch.tensor([window[:-1]])).logits[0].double()
        log_probabilities = logits.log_softmax(-1)
        for position in range(scored_to - start, end - start):
            total -= float(log_probabilities[position, window[position + 1]])
        scored_to = end
    return total


@pytest.mark.parametrize("stride", [None, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_scoring_equals_one_window_at_a_time(
    tiny_model: Callable[[str], Path], family: str, stride: int | None
) -> None:
    folder = tiny_model(family)
    base = load_base(folder, precision="fp32", device="cpu")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = np.random.default_rng(0)
    lengths = [1, 2, 15, 16, 17, 40, 3, 8]
    tokens = [generator.integers(3, 250, size=length).astype(np.int32) for length in lengths]
    documents = [make_document(f"document {index} é 你好\u2028 \t x") for index in range(len(tokens))]
    scores = score_documents(base, documents, tokens, prefix=PREFIX, context_length=16, stride=stride)
    expected = [plain_nll(model, ids, 16, stride) for ids in tokens]
    assert scores.nll == pytest.approx(expected, rel=1e-5)
    assert scores.num_tokens.tolist() == lengths


def test_bytes_and_words_are_those_of_the_text(tiny_model: Callable[[str], Path]) -> None:
    base = load_base(tiny_model("smollm2"), precision="fp32", device="cpu")
    texts = ["naïve café\u00a0x", "你好 世界\n\n", "\t\r\n tab", "🙂🙂", "\u2028line separator\u0085next"]
    documents = [make_document(text) for text in texts]
    tokens = [np.array([5, 6, 7], dtype=np.int32) for _ in texts]
    scores = score_documents(base, documents, tokens, prefix=PREFIX, context_length=8)
    assert scores.num_bytes.tolist() == [len(text.encode()) for text in texts]
    assert scores.num_words.tolist() == [len(re.split(r"\s+", text)) for text in texts]
    total = scores.total()
    assert total.num_documents == len(texts)
    assert total.bits_per_byte == pytest.approx(total.negative_log_likelihood / math.log(2) / total.num_bytes)
    assert total.perplexity == pytest.approx(math.exp(total.negative_log_likelihood / 15))
    assert total.byte_perplexity == pytest.approx(2**total.bits_per_byte)


def test_documents_do_not_see_one_another(tiny_model: Callable[[str], Path]) -> None:
    base = load_base(tiny_model("smollm2"), precision="fp32", device="cpu")
    generator = np.random.default_rng(1)
    tokens = [generator.integers(3, 250, size=4).astype(np.int32) for _ in range(9)]
    documents = [make_document(str(index)) for index in range(9)]
    together = score_documents(base, documents, tokens, prefix=PREFIX, context_length=32)
    alone = [
        score_documents(base, [document], [ids], prefix=PREFIX, context_length=32).nll[0]
        for document, ids in zip(documents, tokens, strict=True)
    ]
    assert together.nll == pytest.approx(alone, rel=1e-5)
