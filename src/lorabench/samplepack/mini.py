"""Builds the mini models: the architectures of GPT-2, Pythia and Gemma at about two million parameters.

They exist so that a laptop without a hub has several families to compare. Each gets a tokenizer of its family's kind,
trained on the training splits of the whole sample pack, and is really pretrained on two of them, so that the others are
new to it. A mini model never sees a validation or test document.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorabench.core.errors import ModelError
from lorabench.core.progress import Progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

CORPORA = ("news", "wikipedia", "medical", "python-code", "technical-docs", "stories")
"""The sample pack."""
TOKENIZER_BYTES = 500_000
"""Text per corpus that a tokenizer is trained on."""
PRETRAINING_CORPORA = ("wikipedia", "technical-docs")
"""What a model is trained on: of the widest range, and not what it is fine-tuned on later in the `local` profile."""
PRETRAINING_BYTES = 840_000
"""Text of each of them."""
LONGEST_BEGINNING = 20_000
"""Characters of a document that are used, so that one long file does not stand for a corpus."""
HEAD_WIDTH = 32
SEED = 0


@dataclass(frozen=True)
class MiniShape:
    """What is built: the fields of a catalogue entry of the same names."""

    name: str
    family: str
    num_parameters: int
    num_layers: int
    hidden_size: int
    vocabulary_size: int
    max_context_length: int
    linear_modules: Mapping[str, tuple[int, int]]


def build_mini(
    shape: MiniShape, texts: Mapping[str, Sequence[str]], folder: Path, progress: Progress | None = None
) -> None:
    """Write the model into `folder` as an ordinary Transformers folder. Takes about a minute on two cores.

    `texts`: the training documents of each of the CORPORA, in their order. Raises ModelError for a shape that does not
    fit its family.
    """
    import torch
    from transformers.utils import logging

    from lorabench.samplepack.mini_tokenizers import save_tokenizer, train_tokenizer
    from lorabench.samplepack.mini_training import Schedule, pretrain

    report = progress or (lambda what, done, total: None)
    report(f"Training the tokenizer of {shape.name}", 0, None)
    tokenizer = train_tokenizer(shape.family, _texts(texts.values(), TOKENIZER_BYTES), shape.vocabulary_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED + zlib.crc32(shape.name.encode()))
        model = make_model(shape, tokenizer)
        prefix = int(model.config.bos_token_id)
        stream = _stream([texts[name] for name in PRETRAINING_CORPORA], tokenizer, prefix)
        pretrain(
            model,
            stream,
            prefix=prefix,
            schedule=Schedule(),
            seed=SEED,
            on_step=lambda step, steps: report(f"Pretraining {shape.name}", step, steps),
        )
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, shape.family, folder, shape.max_context_length)


def _texts(corpora: Iterable[Sequence[str]], num_bytes: int) -> Iterator[str]:
    """The beginnings of each corpus's last documents (their order is that of hashes), so many bytes per corpus.

    Budgets take the first documents, so an adapter trained later on little text is trained on text that is new.
    """
    for corpus in corpora:
        taken = 0
        for document in reversed(corpus):
            text = document[:LONGEST_BEGINNING]
            yield text
            taken += len(text.encode())
            if taken >= num_bytes:
                break


def _stream(corpora: list[Sequence[str]], tokenizer: Tokenizer, prefix: int) -> Tensor:
    """Token ids of the training text, each document after the prefix token, the corpora's documents well mixed."""
    import torch

    texts = sorted(_texts(corpora, PRETRAINING_BYTES), key=lambda text: zlib.crc32(text.encode()))
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return torch.cat([torch.tensor([prefix, *encoding.ids]) for encoding in encodings])


def make_model(shape: MiniShape, tokenizer: Tokenizer) -> Any:
    """The architecture with seeded random weights. Raises ModelError where its sizes do not fit it."""
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": shape.vocabulary_size,
        "max_position_embeddings": shape.max_context_length,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.hidden_size // HEAD_WIDTH,
    }
    if shape.family == "gpt2":
        end = tokenizer.token_to_id("<|endoftext|>")
        dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        config: Any = transformers.GPT2Config(
            **sizes, **dropout, n_inner=shape.linear_modules["mlp.c_fc"][1], bos_token_id=end, eos_token_id=end
        )
        model: Any = transformers.GPT2LMHeadModel(config)
    elif shape.family == "gpt-neox":
        width = shape.linear_modules["mlp.dense_h_to_4h"][1]
        config = transformers.GPTNeoXConfig(**sizes, intermediate_size=width, bos_token_id=0, eos_token_id=0)
        model = transformers.GPTNeoXForCausalLM(config)
    elif shape.family == "gemma":
        config = transformers.GemmaConfig(
            **sizes,
            num_key_value_heads=shape.linear_modules["self_attn.k_proj"][1] // HEAD_WIDTH,
            head_dim=HEAD_WIDTH,
            intermediate_size=shape.linear_modules["mlp.gate_proj"][1],
            hidden_act="gelu_pytorch_tanh",
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
        )
        model = transformers.GemmaForCausalLM(config)
    else:
        raise ModelError(f"model {shape.name}: no mini model of the family {shape.family} can be built")
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if num_parameters != shape.num_parameters:
        raise ModelError(f"model {shape.name}: the catalogue says {shape.num_parameters}, it has {num_parameters}")
    return model
