"""The mini models: what they are made of, that pretraining works and repeats, and that held-out text stays held out."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorabench.corpora.documents import SPLITS, make_document
from lorabench.models.catalog import get_model
from lorabench.models.sources.mini import MiniModel
from lorabench.samplepack import mini, mini_training
from lorabench.samplepack.mini_tokenizers import train_tokenizer
from lorabench.samplepack.mini_training import Muon, Schedule, _FusedHead, orthogonalise, pretrain
from lorabench.samplepack.stories import write_stories
from lorabench.tokens.tokenizer import Tokeniser

NAMES = ("gpt2-mini", "pythia-mini", "gemma-mini")
CLASSES = {"gpt2-mini": "GPT2LMHeadModel", "pythia-mini": "GPTNeoXForCausalLM", "gemma-mini": "GemmaForCausalLM"}
QUICK = Schedule(num_steps=4, tokens_per_step=256, short_row_length=32, warmup_steps=2)


@pytest.fixture(scope="module")
def stories() -> list[str]:
    return [story for story, _ in zip(write_stories(), range(300), strict=False)]


class _TrainOnly(dict[str, Any]):
    """A corpus's splits of which only train may be looked at."""

    def __getitem__(self, split: str) -> Any:
        assert split == "train", f"a mini model looked at {split}"
        return super().__getitem__(split)


def mini_entry(name: str) -> MiniModel:
    entry = get_model(name)
    assert isinstance(entry, MiniModel)
    return entry


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, stories: list[str], tmp_path: Path) -> Callable[[str], Path]:
    """`build_mini` on a few stories and few steps, at an entry's real size."""
    documents = sorted(map(make_document, stories), key=lambda document: document.hash)
    splits = _TrainOnly(dict.fromkeys(SPLITS, documents))
    monkeypatch.setattr("lorabench.models.sources.mini.load_corpus", lambda name, **_: SimpleNamespace(splits=splits))
    monkeypatch.setattr(mini_training, "Schedule", lambda: QUICK)

    def built(name: str, into: str = "model") -> Path:
        folder = tmp_path / into
        folder.mkdir()
        tokenizer = train_tokenizer(get_model(name).family, stories, get_model(name).vocabulary_size)
        monkeypatch.setattr("lorabench.samplepack.mini_tokenizers.train_tokenizer", lambda *_: tokenizer)
        mini_entry(name).make(folder)
        return folder

    return built


@pytest.mark.parametrize("name", NAMES)
def test_a_mini_model_is_an_ordinary_folder_of_its_family(build: Callable[[str], Path], name: str) -> None:
    folder = build(name)
    entry = get_model(name)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert type(loaded).__name__ == CLASSES[name]
    assert loaded.num_parameters() == entry.num_parameters
    assert loaded.config.max_position_embeddings == entry.max_context_length
    layer = dict(loaded.get_submodule(f"{entry.layer_path}.0").named_modules())
    for path, (num_inputs, num_outputs) in entry.linear_modules.items():
        assert set(layer[path].weight.shape) == {num_inputs, num_outputs}
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prefix = Tokeniser(folder).prefix_token_id
    assert prefix == loaded.config.bos_token_id == tokenizer.bos_token_id
    assert (prefix == 2) is (entry.family == "gemma")
    assert prefix not in tokenizer("a story")["input_ids"], "who starts a window puts it there"


def test_the_same_seed_gives_the_same_file(build: Callable[..., Path]) -> None:
    state = torch.random.get_rng_state()
    first = (build("gpt2-mini", "first") / "model.safetensors").read_bytes()
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random state was touched"
    torch.manual_seed(99)
    assert (build("gpt2-mini", "second") / "model.safetensors").read_bytes() == first


BUILD = """
import sys
from lorabench.samplepack import mini, mini_training
from lorabench.models.locate import locate_model
from lorabench.models.sources import mini as source
quick = mini_training.Schedule(num_steps=int(sys.argv[1]), tokens_per_step=256, short_row_length=32, warmup_steps=2)
mini_training.Schedule, source.CORPORA, mini.PRETRAINING_CORPORA = lambda: quick, ("stories",), ("stories",)
location = locate_model("gpt2-mini", progress=lambda what, done, total: print(what, done, total, flush=True))
print(location.info.weights_note, location.folder, flush=True)
"""


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_and_two_at_once_build_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path))

    def start(num_steps: int) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", BUILD, str(num_steps)], stdout=subprocess.PIPE, text=True)

    with start(100_000) as killed:
        assert killed.stdout is not None
        assert any(line.startswith("Pretraining gpt2-mini") for line in killed.stdout), "it never began"
        killed.kill()
    assert [path for path in (tmp_path / "models").iterdir() if not path.name.startswith(".")] == []
    both = [start(4), start(4)]
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("Pretraining gpt2-mini" in text for text in printed) == 1
    assert len({text.splitlines()[-1] for text in printed}) == 1
    (folder,) = [path for path in (tmp_path / "models").iterdir() if path.is_dir()]
    assert (folder / "model.safetensors").is_file()


def test_pretraining_text_comes_from_where_budgets_do_not() -> None:
    documents = [f"{number} {'word ' * 20}" for number in range(10)]
    texts = list(mini._texts([documents, documents[:3]], 250))
    assert texts == [*documents[:6:-1], *documents[2::-1]]


TEXT = "The old bridge, 1234 metres.\n\n    def run(x):\n        return x  # naïve 你好\n"


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "gemma"])
def test_tokenizers_lose_nothing(stories: list[str], family: str) -> None:
    tokenizer = train_tokenizer(family, stories, 700)
    assert tokenizer.get_vocab_size() == 700
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == TEXT
    assert max(ids) < 700
    assert len(tokenizer.encode(stories[0], add_special_tokens=False).ids) < len(stories[0]) / 2


def test_each_kind_of_tokenizer_is_its_familys(stories: list[str]) -> None:
    gpt2, neox, gemma = (train_tokenizer(family, stories, 700) for family in ("gpt2", "gpt-neox", "gemma"))
    assert gpt2.token_to_id("<|endoftext|>") == 699
    assert [neox.token_to_id(token) for token in ("<|endoftext|>", "<|padding|>")] == [0, 1]
    assert neox.encode("x        y").tokens[1] == " " * 8
    assert [gemma.token_to_id(token) for token in ("<pad>", "<eos>", "<bos>", "<unk>")] == [0, 1, 2, 3]
    assert gemma.encode("好 12").tokens == ["<0xE5>", "<0xA5>", "<0xBD>", *gemma.encode(" 12").tokens]
    assert any(token.startswith("▁") and len(token) > 3 for token in gemma.get_vocab())
    assert not any("Ġ" in token for token in gemma.get_vocab())


def test_the_fused_head_is_cross_entropy() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(1100, 12, requires_grad=True)
    weight = torch.randn(50, 12, requires_grad=True)
    targets = torch.randint(0, 50, (1100,))
    wanted = torch.nn.functional.cross_entropy(hidden @ weight.T, targets)
    gradients = torch.autograd.grad(3 * wanted, (hidden, weight))
    loss = _FusedHead.apply(hidden, weight, targets)
    torch.testing.assert_close(loss, wanted)
    for gradient, expected in zip(torch.autograd.grad(3 * loss, (hidden, weight)), gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, 16, 64), 5))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_moves_each_stacked_matrix_by_itself() -> None:
    parameter = torch.nn.Parameter(torch.zeros(8, 24))
    gradient = torch.randn(8, 24, generator=torch.Generator().manual_seed(0))
    gradient[:, 16:] *= 1000
    parameter.grad = gradient.clone()
    Muon([(parameter, 3)], Schedule()).step(1.0)
    sizes = [piece.norm() for piece in parameter.detach().chunk(3, 1)]
    assert max(sizes) < 2 * min(sizes)
    assert (parameter.detach() * gradient).sum() < 0


def test_rates_rise_then_fall_and_rows_grow() -> None:
    schedule = Schedule()
    factors = [schedule.factor(step) for step in range(schedule.num_steps)]
    assert max(factors) == 1.0
    assert factors[0] == pytest.approx(1 / schedule.warmup_steps)
    assert factors[-1] < 0.01
    lengths = [schedule.row_length(step, 256) for step in range(schedule.num_steps)]
    assert lengths == sorted(lengths)
    assert set(lengths) == {128, 256}


@pytest.mark.parametrize("name", NAMES)
def test_pretraining_learns_and_reports(stories: list[str], name: str) -> None:
    sizes = {"num_layers": 1, "hidden_size": 32, "vocabulary_size": 400, "max_context_length": 64}
    modules = {"mlp.c_fc": (32, 64), "mlp.dense_h_to_4h": (32, 64), "mlp.gate_proj": (32, 64)}
    shape = replace(
        mini_entry(name).mini_shape(),
        **sizes,
        linear_modules=modules | {"self_attn.k_proj": (32, 32)},
        num_parameters=-1,
    )
    tokenizer = train_tokenizer(shape.family, stories, 400)
    torch.manual_seed(0)
    with pytest.raises(Exception, match="the catalogue says -1, it has") as refused:
        mini.make_model(shape, tokenizer)
    count = int(str(refused.value).rpartition(" ")[2])
    model = mini.make_model(replace(shape, num_parameters=count), tokenizer)
    prefix = model.config.bos_token_id
    ids = [id for story in stories for id in (prefix, *tokenizer.encode(story, add_special_tokens=False).ids)]
    told: list[tuple[int, int]] = []
    schedule = Schedule(num_steps=80, tokens_per_step=256, short_row_length=32, other_rate=1e-2)
    late = pretrain(
        model, torch.tensor(ids), prefix=prefix, schedule=schedule, seed=1, on_step=lambda *news: told.append(news)
    )
    assert told == [(step, 80) for step in range(1, 81)]
    assert late < math.log(400) - 1.2
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def _bits_per_byte(model: Any, tokenizer: Any, text: str, *, bos: bool) -> float:
    """Of every token but the first, in one window that starts with BOS or does not."""
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][:, :200]
    start = torch.full((1, int(bos)), tokenizer.bos_token_id)
    with torch.no_grad():
        logits = model(torch.cat([start, ids], dim=1)).logits[0, int(bos) : -1]
    nll = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
    return float(nll) / math.log(2) / len(tokenizer.decode(ids[0, 1:]).encode())


@pytest.mark.slow
def test_gemma_needs_its_bos() -> None:
    from lorabench.corpora.store import load_corpus
    from lorabench.models.locate import locate_model

    folder = locate_model("gemma-mini").folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert Tokeniser(folder).prefix_token_id == 2
    documents = load_corpus("technical-docs", max_train_bytes=None).splits["validation"][:20]
    score = partial(_bits_per_byte, model, tokenizer)
    with_bos = [score(document.text, bos=True) for document in documents]
    without = [score(document.text, bos=False) for document in documents]
    assert sum(without) > sum(with_bos)
    assert sum(after > before for before, after in zip(with_bos, without, strict=True)) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mini_models_know_more_than_token_frequencies(name: str) -> None:
    """Their bits per byte on held-out text against those of the same tokens' frequencies in the training text."""
    from lorabench.corpora.budget import take_budget
    from lorabench.corpora.store import load_corpus
    from lorabench.models.base import load_base
    from lorabench.models.locate import locate_model
    from lorabench.scoring.documents import score_documents

    folder = locate_model(name).folder
    tokens = Tokeniser(folder)
    base = load_base(folder, precision="fp32", device="cpu")
    for corpus in mini.PRETRAINING_CORPORA:
        splits = load_corpus(corpus, max_train_bytes=None).splits
        held_out = take_budget(splits["validation"], 12_000)
        ids = tokens.encode(held_out)
        scores = score_documents(base, held_out, ids, prefix=tokens.prefix_token_id, context_length=256).total()
        seen = tokens.encode(take_budget(splits["train"], 400_000))
        counts = torch.bincount(torch.cat([torch.from_numpy(part).long() for part in seen]), minlength=4096) + 1.0
        surprise = -(counts / counts.sum()).log()
        unigram = sum(float(surprise[torch.from_numpy(part).long()].sum()) for part in ids)
        assert scores.negative_log_likelihood < 0.9 * unigram, corpus
