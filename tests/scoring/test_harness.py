"""Our scoring against EleutherAI's lm-evaluation-harness, on the same files with the same models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lorabench.corpora.budget import take_budget
from lorabench.corpora.files import read_local_documents
from lorabench.corpora.store import load_corpus
from lorabench.models.base import load_base
from lorabench.models.locate import locate_model
from lorabench.runs.evaluation import evaluate
from lorabench.scoring.documents import score_documents
from lorabench.tokens.tokenizer import Tokeniser
from tests.conftest import FAMILIES

RUN_HARNESS = Path(__file__).parents[2] / "benchmarks" / "run_harness.py"
TOLERANCE = 1e-4

ODD = [
    "Plain words, and 12345 figures.",
    " leading and trailing \n",
    "tabs\tand\r\nlines\r\n\r\n",
    "naïve café, composed \u00e9 and not e\u0301, ﬁ, Å",
    "🙂👩‍👩‍👧 zero\u200bwidth\u200d and \ufeff inside",
    "<|endoftext|>inside<|endoftext|> <|padding|><|im_start|>user <bos><eos><pad><unk>",
    "<bos>first",
    "<|endoftext|>",
    "\u3000ideographic\u2028separators\u0085and\u00a0spaces\u2003",
    "a\x00b\x1c\x07",
    "def f():\n        return  1\n\n\n\n",
    "don't we'll 's  can 't . , !",
    "   ",
    "\n",
    "",
    "x",
    "你好，世界。한국어",
    "العربية עברית",
    "हिन्दी",
    "[1, 2]",
    "{{text}} {% raw %}",
]
"""No longer than the tiny models' window of 64 tokens."""


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="ascii")
    return path


def run_harness(models: list[Path], files: list[Path], max_length: int) -> list[list[dict[str, Any]]]:
    """The harness in a process of its own: for each model, its figures for each file.

    Where a tokenizer puts BOS before a text by itself, the harness is told to leave that out: it begins a document with
    BOS already, and with a second one it would score BOS as if it were text.
    """
    requests = []
    for model in models:
        adds_bos = len(AutoTokenizer.from_pretrained(model)("")["input_ids"]) > 0
        request: dict[str, Any] = {"model": str(model), "files": list(map(str, files)), "max_length": max_length}
        requests.append(json.dumps(request | ({"model_args": {"add_bos_token": False}} if adds_bos else {})))
    done = subprocess.run(
        [sys.executable, str(RUN_HARNESS)], input="\n".join(requests), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_agreement(folder: Path, files: list[Path], max_length: int, harness: list[dict[str, Any]]) -> None:
    base, tokeniser = load_base(folder, precision="fp32", device="cpu"), Tokeniser(folder)
    for path, theirs in zip(files, harness, strict=True):
        ours = evaluate(str(folder), path, context_length=max_length, precision="fp32")
        for figure in ("bits_per_byte", "byte_perplexity", "word_perplexity"):
            assert ours[figure] == pytest.approx(theirs[figure], rel=TOLERANCE), figure
        assert (ours["num_bytes"], ours["num_words"]) == (theirs["num_bytes"], theirs["num_words"])
        documents = read_local_documents(path)
        scores = score_documents(
            base,
            documents,
            tokeniser.encode(documents),
            prefix=tokeniser.prefix_token_id,
            context_length=max_length,
        )
        assert [-value for value in theirs["loglikelihoods"]] == pytest.approx(scores.nll.tolist(), rel=TOLERANCE)


@pytest.fixture(scope="module")
def tiny_results(
    tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    """The odd file, and the harness's figures for it by family."""
    path = write_jsonl(tmp_path_factory.mktemp("text") / "odd.jsonl", ODD)
    figures = run_harness([tiny_model(family) for family in FAMILIES], [path], 64)
    return path, dict(zip(FAMILIES, figures, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_agrees_with_the_harness(
    tiny_model: Callable[[str], Path],
    tiny_results: tuple[Path, dict[str, list[dict[str, Any]]]],
    family: str,
) -> None:
    path, figures = tiny_results
    assert_agreement(tiny_model(family), [path], 64, figures[family])


@pytest.mark.slow
def test_the_real_model_agrees_with_the_harness(tmp_path: Path) -> None:
    files = [write_jsonl(tmp_path / "odd.jsonl", ODD)]
    for name in ("news", "python-code"):
        documents = load_corpus(name, max_train_bytes=None).splits["validation"]
        short = [document for document in documents if document.num_bytes < 2500]
        texts = [document.text for document in take_budget(short, 3_000)]
        files.append(write_jsonl(tmp_path / f"{name}.jsonl", texts))
    folder = locate_model("smollm2-135m-instruct").folder
    (figures,) = run_harness([folder], files, 1024)
    assert_agreement(folder, files, 1024, figures)


@pytest.mark.slow
def test_the_mini_models_agree_with_the_harness(tmp_path: Path) -> None:
    documents = load_corpus("news", max_train_bytes=None).splits["validation"]
    texts = [document.text[:400] for document in documents[:40]]
    files = [write_jsonl(tmp_path / "odd.jsonl", ODD), write_jsonl(tmp_path / "news.jsonl", texts)]
    folders = [locate_model(name).folder for name in ("gpt2-mini", "pythia-mini", "gemma-mini")]
    for folder, figures in zip(folders, run_harness(folders, files, 256), strict=True):
        assert_agreement(folder, files, 256, figures)
