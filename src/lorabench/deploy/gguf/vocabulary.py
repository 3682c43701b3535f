"""A tokenizer as llama.cpp reads it: tokens with their kinds, merges or scores, and the splitting before them.

llama.cpp knows its splittings by name and never by their pattern, so a tokenizer's is recognised from what
`tokenizer.json` says; one that is not recognised is refused instead of splitting text in another way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from lorabench.core.errors import ModelError

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = {_WORDS + r"\p{N}" + _REST: "qwen2", _WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe"}
"""By the pattern of a `Split` before the bytes: what llama.cpp calls it."""
_SPACE = "▁"


@dataclass(frozen=True)
class Vocabulary:
    """What is written of a tokenizer."""

    kind: str
    """`gpt2` for byte-level BPE, `llama` for SentencePiece."""
    splitting: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    """Of byte-level BPE; empty for SentencePiece."""
    scores: list[float]
    """Of SentencePiece: the higher, the sooner a pair becomes this token; empty for byte-level BPE."""
    prefix_space: bool


def read_vocabulary(folder: Path, num_rows: int) -> Vocabulary:
    """Of a model folder whose embeddings have `num_rows` rows. Raises ModelError for what llama.cpp would not split."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder}: tokenizer.json is missing, which a GGUF file's vocabulary is made of")
    state = json.loads(path.read_text(encoding="utf-8"))
    model = state["model"]
    if model.get("type") != "BPE":
        raise ModelError(f"{path}: tokenizers of the kind {model.get('type')!r} are not written; accepted: BPE")
    is_pieces = bool(model.get("byte_fallback"))
    added = {token["id"]: token for token in state.get("added_tokens", ())}
    tokens, types = _tokens(model["vocab"], added, num_rows, is_pieces, path)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if is_pieces:
        return Vocabulary("llama", "default", tokens, types, [], _scores(tokens, merges), _prefixes_space(state, path))
    return Vocabulary("gpt2", _splitting(state, path), tokens, types, merges, [], False)


def write_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary, folder: Path) -> None:
    """Put the vocabulary, the special tokens and the chat template of a model folder into a file's settings."""
    from transformers import AutoTokenizer

    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_tokenizer_pre(vocabulary.splitting)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.prefix_space)
    else:
        writer.add_token_merges(vocabulary.merges)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    for token_id, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if token_id is not None:
            add(token_id)
    writer.add_add_bos_token(adds_beginning(tokenizer))
    ends = tokenizer("a")["input_ids"]
    writer.add_add_eos_token(tokenizer.eos_token_id is not None and ends[-1] == tokenizer.eos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def adds_beginning(tokenizer: Any) -> bool:
    """Whether a text that is read begins with the tokenizer's token for a beginning."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id


def _tokens(
    vocab: Mapping[str, int], added: Mapping[int, Mapping[str, Any]], num_rows: int, is_pieces: bool, path: Path
) -> tuple[list[str], list[int]]:
    """Text and kind of every row of the embeddings; rows without a token are unused ones."""
    names = {number: token for token, number in vocab.items()} | {key: token["content"] for key, token in added.items()}
    if max(names) >= num_rows:
        raise ModelError(f"{path}: it has token {max(names)}, but the model's embeddings have {num_rows} rows")
    tokens, types = [], []
    for number in range(num_rows):
        name, kind = names.get(number, f"[PAD{number}]"), gguf.TokenType.NORMAL
        if number not in names:
            kind = gguf.TokenType.UNUSED
        elif number in added:
            kind = gguf.TokenType.CONTROL if added[number]["special"] else gguf.TokenType.USER_DEFINED
            if is_pieces and kind is gguf.TokenType.USER_DEFINED:
                name = name.replace(_SPACE, " ")
            if is_pieces and name == "<unk>":
                kind = gguf.TokenType.UNKNOWN
        elif is_pieces and len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            kind = gguf.TokenType.BYTE
        tokens.append(name)
        types.append(int(kind))
    return tokens, types


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """Minus the place of the first merge that makes a token; characters, which no merge makes, come last."""
    first: dict[str, int] = {}
    for place, merge in enumerate(merges):
        first.setdefault(merge.replace(" ", ""), place)
    return [-float(first.get(token, len(merges))) for token in tokens]


def _prefixes_space(state: Mapping[str, Any], path: Path) -> bool:
    """Whether a text is read as if a space stood before it; refuses what turns spaces into anything but ▁."""
    steps = _steps(state.get("normalizer"), "normalizers")
    replaced = any(
        step.get("type") == "Replace" and step.get("pattern") == {"String": " "} and step.get("content") == _SPACE
        for step in steps
    )
    splitting = _steps(state.get("pre_tokenizer"), "pretokenizers")
    spaces = [step for step in splitting if step.get("type") == "Metaspace"]
    if not replaced and not spaces:
        raise ModelError(f"{path}: how it writes spaces is not one of the ways that llama.cpp knows")
    prepended = any(step.get("type") == "Prepend" for step in steps)
    return prepended or any(step.get("prepend_scheme", "always") != "never" for step in spaces)


def _splitting(state: Mapping[str, Any], path: Path) -> str:
    """What llama.cpp calls the splitting of a byte-level tokenizer."""
    steps = _steps(state.get("pre_tokenizer"), "pretokenizers")
    kinds = [step.get("type") for step in steps]
    last = steps[-1] if steps else {}
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if kinds == ["ByteLevel"] and last.get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and last.get("use_regex", True):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not last.get("use_regex", True):
            pattern = steps[0].get("pattern", {}).get("Regex", "")
            if pattern in _PATTERNS and steps[0].get("behavior") == "Isolated":
                return _PATTERNS[pattern]
    raise ModelError(
        f"{path}: how it splits text before its merges ({', '.join(map(str, kinds)) or 'nothing'}) is not one of the "
        f"ways that are known by llama.cpp's names: gpt-2, smollm, {', '.join(_PATTERNS.values())}"
    )


def _steps(part: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """The steps of a sequence, or the one step that a part is."""
    if part is None:
        return []
    return list(part[key]) if part.get("type") == "Sequence" else [part]
