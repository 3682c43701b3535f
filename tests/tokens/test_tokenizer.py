from __future__ import annotations

import json
import logging
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from lorabench.core.errors import ModelError
from lorabench.corpora.documents import Document, make_document
from lorabench.tokens.tokenizer import Tokeniser
from tests.corpora.test_duplicates import text_of

TEXTS = [
    "A plain sentence.",
    "  two spaces before, a tab\there,\r\nand two after  ",
    "Zoë 漢字 🙂 e\u0301 \u00a0 \u200b \x07",
    "12345 67.89",
    "x",
    "def f(x):\n    return x  # <|endoftext|>\n",
]


def documents(texts: list[str]) -> list[Document]:
    return [make_document(text) for text in texts]


def byte_level_folder(folder: Path, **settings: object) -> Path:
    """A folder with a byte-level tokenizer of 257 tokens, the last of them <s>."""
    folder.mkdir(exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {sign: number for number, sign in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"vocab_size": 257}))
    return folder


@pytest.mark.parametrize("family", ["gpt2", "pythia", "gemma", "smollm2"])
def test_tokens_are_those_of_transformers(tiny_model: Callable[[str], Path], cache: Path, family: str) -> None:
    from transformers import AutoTokenizer

    folder = tiny_model(family)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = Tokeniser(folder)
    texts = [text for text in TEXTS if "漢" not in text or family != "gemma"]
    for ids, text in zip(ours.encode(documents(texts)), texts, strict=True):
        assert ids.dtype == np.int32
        assert ids.tolist() == theirs(text, add_special_tokens=False)["input_ids"]
    expected = theirs.bos_token_id if theirs.bos_token_id is not None else theirs.eos_token_id
    assert ours.prefix_token_id == expected


def test_tokens_are_kept_and_damage_is_mended(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokeniser = Tokeniser(byte_level_folder(tmp_path / "model", bos_token="<s>"))
    texts = documents(TEXTS)
    first = tokeniser.encode(texts)
    assert [len(ids) for ids in first[:5]] == [document.num_bytes for document in texts[:5]]
    (path,) = cache.rglob("*.tokens")
    tokeniser._backend = None
    for one, other in zip(first, tokeniser.encode(texts), strict=True):
        assert np.array_equal(one, other)
    path.write_bytes(path.read_bytes()[:-3])
    tokeniser = Tokeniser(tmp_path / "model")
    with caplog.at_level(logging.WARNING):
        again = tokeniser.encode(texts)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert "damaged" in caplog.text
    assert len(list(cache.rglob("*.damaged-*"))) == 1


def test_another_tokenizer_has_other_tokens(tmp_path: Path, cache: Path) -> None:
    folder = byte_level_folder(tmp_path / "model", bos_token="<s>")
    first = Tokeniser(folder)
    first.encode(documents(TEXTS))
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["added_tokens"][0]["content"] = "<t>"
    path.write_text(json.dumps(values))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<t>"}))
    assert Tokeniser(folder.rename(tmp_path / "other")).sha256 != first.sha256


@pytest.mark.parametrize(
    ("settings", "config", "expected"),
    [
        ({"bos_token": "<s>"}, {}, 256),
        ({"bos_token": {"content": "<s>", "special": True}}, {}, 256),
        ({"bos_token": None, "eos_token": "<s>"}, {"bos_token_id": 3}, 256),
        ({}, {"bos_token_id": 7, "eos_token_id": 8}, 7),
        ({}, {"bos_token_id": None, "eos_token_id": [9, 10]}, 9),
    ],
)
def test_the_prefix_is_bos_else_eos(
    tmp_path: Path, settings: dict[str, object], config: dict[str, object], expected: int
) -> None:
    folder = byte_level_folder(tmp_path / "model", **settings)
    (folder / "config.json").write_text(json.dumps({"vocab_size": 257, **config}))
    assert Tokeniser(folder).prefix_token_id == expected


def test_a_tokenizer_without_bos_and_eos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a BOS nor an EOS"):
        Tokeniser(byte_level_folder(tmp_path / "model"))


def test_a_tokenizer_that_returns_nothing_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = byte_level_folder(tmp_path / "model", bos_token="<s>")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Replace("nothing", "")
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelError, match=r"no token for document [0-9a-f]{12} \('nothing'\)"):
        Tokeniser(folder).encode(documents(["something", "nothing"]))


def test_a_tokenizer_that_loses_text_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = byte_level_folder(tmp_path / "model", bos_token="<s>")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelError, match="loses text"):
        Tokeniser(folder).encode(documents(TEXTS[:1]))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = byte_level_folder(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"vocab_size": 50, "eos_token_id": 3}))
    with pytest.raises(ModelError, match="belongs to another model"):
        Tokeniser(folder).encode(documents(["zzz"]))


@pytest.mark.parametrize("first", ["larger", "smaller"])
def test_kept_tokens_are_checked_against_each_model(tmp_path: Path, cache: Path, first: str) -> None:
    folders = {}
    for name, config in {
        "larger": {"vocab_size": 257},
        "smaller": {"vocab_size": 256},
        "of more than text": {"vocab_size": 300, "text_config": {"vocab_size": 256}},
    }.items():
        folders[name] = byte_level_folder(tmp_path / name)
        (folders[name] / "config.json").write_text(json.dumps({"eos_token_id": 3, **config}))
    texts = documents(["with <s> inside", ""])
    for name in (first, "larger", "smaller", "larger", "of more than text", "smaller"):
        if name == "larger":
            assert Tokeniser(folders[name]).encode(texts)[0].max() == 256
        else:
            with pytest.raises(ModelError, match="gives token 256, but the model knows 256 tokens"):
                Tokeniser(folders[name]).encode(texts)
    assert len(list(cache.rglob("*.tokens"))) == 1


def test_folders_without_a_usable_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tokenizer"):
        Tokeniser(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="not a tokenizer"):
        Tokeniser(tmp_path)


def test_a_folder_without_tokenizer_json_is_read_by_transformers(
    tiny_model: Callable[[str], Path], tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("gpt2"), folder)
    expected = Tokeniser(folder).encode(documents(TEXTS))
    (folder / "tokenizer.json").unlink()
    tokeniser = Tokeniser(folder)
    assert tokeniser.prefix_token_id == Tokeniser(tiny_model("gpt2")).prefix_token_id
    for ids, one in zip(tokeniser.encode(documents(TEXTS)), expected, strict=True):
        assert ids.tolist() == one.tolist()
        assert tokeniser.decode(ids.tolist()) in TEXTS


def test_padding_and_truncation_in_the_file_are_not_applied(tmp_path: Path, cache: Path) -> None:
    folder = byte_level_folder(tmp_path / "model", bos_token="<s>")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert [len(ids) for ids in Tokeniser(folder).encode(documents(["a longer text", "x"]))] == [13, 1]


@pytest.mark.alone
@pytest.mark.slow
def test_speed_is_near_the_library_s_own(tiny_model: Callable[[str], Path], cache: Path) -> None:
    rng = random.Random(1)
    texts = documents([text_of(rng, rng.randint(50, 900)) for _ in range(4000)])
    folder = tiny_model("smollm2")
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokeniser = Tokeniser(folder)
    ours, theirs = [], []
    for round_number in range(3):
        started = time.perf_counter()
        library.encode_batch_fast([document.text for document in texts], add_special_tokens=False)
        theirs.append(time.perf_counter() - started)
        fresh = documents([f"{document.text} {round_number}" for document in texts])
        started = time.perf_counter()
        tokeniser.encode(fresh)
        ours.append(time.perf_counter() - started)
    assert min(theirs) / min(ours) > 0.6  # about 0.9 on a quiet machine
