"""The mini models' tokenizers: of the same kinds as their big relatives', trained on the text they are given.

GPT-2's kind is byte-level BPE with one special token. GPT-NeoX's adds Unicode normalisation, a padding token and tokens
for runs of spaces. Gemma's is SentencePiece-like BPE: spaces become ▁, unknown characters fall back to bytes, digits
stand alone, and <bos> starts a text. Unlike Gemma's own, ours does not put it there by itself: a program that begins
every text with BOS, as we and EleutherAI's lm-evaluation-harness do, would begin with two and score the second.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|padding|>"
GEMMA_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
LONGEST_RUN_OF_SPACES = 24
MIN_FREQUENCY = 2

_SPACE = "▁"
_GEMMA_PIECES = (
    rf"\n+|{_SPACE}+(?={_SPACE})|{_SPACE}?\p{{L}}+|{_SPACE}?\p{{N}}|{_SPACE}?[^{_SPACE}\n\p{{L}}\p{{N}}]+|{_SPACE}"
)


def train_tokenizer(family: str, texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """A tokenizer of the family's kind with exactly `vocabulary_size` tokens or, on little text, fewer."""
    if family == "gpt2":
        return _train_byte_level(texts, vocabulary_size)
    if family == "gpt-neox":
        return _train_neox(texts, vocabulary_size)
    if family == "gemma":
        return _train_gemma(texts, vocabulary_size)
    raise AssertionError(f"no mini tokenizer is known for the family {family}")


def _trainer(vocabulary_size: int, special: list[str], alphabet: list[str]) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _train_byte_level(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """GPT-2's kind: the special token is the last one."""
    tokenizer = _byte_level()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, _trainer(vocabulary_size - 1, [], alphabet))
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False)])
    return tokenizer


def _train_neox(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """GPT-NeoX's kind: special tokens come first, runs of spaces last."""
    runs = [" " * length for length in range(LONGEST_RUN_OF_SPACES, 1, -1)]
    tokenizer = _byte_level()
    tokenizer.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, _trainer(vocabulary_size - len(runs), [END_OF_TEXT, PADDING], alphabet))
    tokenizer.add_tokens([AddedToken(run, normalized=True) for run in runs])
    return tokenizer


def _train_gemma(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """Gemma's kind. The 256 byte tokens are ordinary tokens of the model, as byte fallback wants them."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_GEMMA_PIECES), "isolated")
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*GEMMA_SPECIAL, *byte_tokens],
        limit_alphabet=400,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in GEMMA_SPECIAL]
    trained = Tokenizer.from_str(json.dumps(state))
    trained.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return trained


def special_tokens(family: str) -> dict[str, str]:
    """The family's special tokens by their Transformers names."""
    if family == "gemma":
        return {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokens = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    return tokens | ({"pad_token": PADDING} if family == "gpt-neox" else {})


def save_tokenizer(tokenizer: Tokenizer, family: str, folder: Path, max_context_length: int) -> None:
    """Write the files from which Transformers loads the tokenizer."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_context_length,
        "clean_up_tokenization_spaces": False,
        **special_tokens(family),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special_tokens(family), indent=2), encoding="utf-8")
