"""Small copies of the models' repositories: the real file names, tensor names and tokenizer kinds, random weights.

Built here rather than kept as binaries: the real architecture's configuration shrunk to a few thousand parameters, and
a tokenizer of the real kind trained on a few lines.
"""

from __future__ import annotations

import io
import json
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from tests.hub.corpora import texts
from tests.hub.server import HubRepository

LINES = [*texts("tokenizer", 40), "Größe, 你好, naïve café, 1234 and 5678.", "def main():\n    return 42\n"]
END = "<|endoftext|>"


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode()


def _weights(config: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Seeded random weights under the names of the current Transformers classes."""
    torch.manual_seed(seed)
    built = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    return {name: parameter.detach().clone() for name, parameter in built.named_parameters()}


def _byte_level(vocabulary: int, *, first: list[str], last: list[str], split_digits: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if split_digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, byte_level]) if digits else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(last),
        special_tokens=first,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in last])
    return tokenizer


def _vocabulary_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    model = json.loads(tokenizer.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    vocabulary = tokenizer.get_vocab()
    return {
        "vocab.json": json.dumps(dict(sorted(vocabulary.items(), key=lambda item: item[1]))).encode(),
        "merges.txt": ("#version: 0.2\n" + "\n".join(merges) + "\n").encode(),
    }


def gpt2() -> HubRepository:
    """`openai-community/gpt2`: names without a prefix, attention masks among the tensors, float32, `Conv1D`."""
    tokenizer = _byte_level(400, first=[], last=[END])
    end = tokenizer.token_to_id(END)
    config: dict[str, Any] = {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": end,
        "embd_pdrop": 0.1,
        "eos_token_id": end,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 64,
        "n_embd": 16,
        "n_head": 2,
        "n_layer": 2,
        "n_positions": 64,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": tokenizer.get_vocab_size(),
    }
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in _weights(config, 1).items()}
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = torch.tril(torch.ones(64, 64)).view(1, 1, 64, 64)
    files = {
        "config.json": _json(config),
        "generation_config.json": _json({"bos_token_id": end, "eos_token_id": end}),
        "model.safetensors": save(tensors, {"format": "pt"}),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": _json({"model_max_length": 1024}),
        **_vocabulary_files(tokenizer),
        "README.md": b"---\nlicense: mit\n---\n",
        "pytorch_model.bin": b"a pickle that must not be fetched",
        "flax_model.msgpack": b"nor this",
        "64.tflite": b"nor this",
        "onnx/config.json": b"{}",
        "onnx/decoder_model.onnx": b"nor this",
    }
    return HubRepository("model", "openai-community/gpt2", {"main": files})


def pythia() -> HubRepository:
    """`EleutherAI/pythia-410m`: float16, masks and rotary frequencies among the tensors, untied head."""
    tokenizer = _byte_level(400, first=[END, "<|padding|>"], last=[])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken(" " * length, normalized=True) for length in range(24, 1, -1)])
    vocabulary = 448
    config: dict[str, Any] = {
        "architectures": ["GPTNeoXForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "gelu",
        "hidden_size": 16,
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 64,
        "model_type": "gpt_neox",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_cache": True,
        "use_parallel_residual": True,
        "vocab_size": vocabulary,
    }
    tensors = {name: tensor.half() for name, tensor in _weights(config, 2).items()}
    for layer in range(2):
        attention = f"gpt_neox.layers.{layer}.attention."
        tensors[attention + "bias"] = torch.tril(torch.ones(64, 64, dtype=torch.bool)).view(1, 1, 64, 64)
        tensors[attention + "masked_bias"] = torch.tensor(-1e9).half()
        tensors[attention + "rotary_emb.inv_freq"] = torch.ones(1).half()
    special = {"bos_token": END, "eos_token": END, "unk_token": END}
    files = {
        "config.json": _json(config),
        "model.safetensors": save(tensors, {"format": "pt"}),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": _json(
            {
                "add_prefix_space": False,
                "name_or_path": "EleutherAI/gpt-neox-20b",
                "tokenizer_class": "GPTNeoXTokenizer",
            }
            | special
        ),
        "special_tokens_map.json": _json(special),
        "README.md": b"---\nlicense: apache-2.0\n---\n",
        "pytorch_model.bin": b"a pickle that must not be fetched",
    }
    return HubRepository("model", "EleutherAI/pythia-410m", {"main": files})


def _sentencepiece_bpe(vocabulary: int) -> Tokenizer:
    """The kind of tokenizer.json that Gemma's SentencePiece model becomes: ▁ for spaces, bytes as fallback, <bos> 2."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[*special, *byte_tokens], show_progress=False)
    trained.train_from_iterator(LINES[:30], trainer)
    state = json.loads(trained.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]
    state["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    return tokenizer


def _sentencepiece_model() -> bytes:
    """A real tokenizer.model, as the repository holds one beside tokenizer.json."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(LINES[:30]),
        model_writer=model,
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        minloglevel=2,
    )
    return model.getvalue()


def gemma(tokens: set[str]) -> HubRepository:
    """`google/gemma-2b`: gated, two bfloat16 shards with an index, one key-value head, tied embeddings, a GGUF too."""
    tokenizer = _sentencepiece_bpe(512)
    config: dict[str, Any] = {
        "architectures": ["GemmaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "head_dim": 16,
        "hidden_act": "gelu",
        "hidden_activation": None,
        "hidden_size": 16,
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "model_type": "gemma",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    tensors = {name: tensor.bfloat16() for name, tensor in _weights(config, 3).items()}
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    place = {name: names[1] if name.startswith(("model.layers.1.mlp", "model.norm")) else names[0] for name in tensors}
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    shards = {
        shard: save({name: tensor for name, tensor in tensors.items() if place[name] == shard}, {"format": "pt"})
        for shard in names
    }
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    files = {
        "config.json": _json(config),
        "generation_config.json": _json({"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}),
        "model.safetensors.index.json": _json({"metadata": {"total_size": total}, "weight_map": place}),
        **shards,
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer.model": _sentencepiece_model(),
        "tokenizer_config.json": _json(
            {"add_bos_token": True, "add_eos_token": False, "tokenizer_class": "GemmaTokenizer"} | special
        ),
        "special_tokens_map.json": _json(special),
        "README.md": b"---\nlicense: gemma\n---\n",
        "gemma-2b.gguf": b"must not be fetched",
    }
    return HubRepository("model", "google/gemma-2b", {"main": files}, gated=tokens)


def smollm2() -> HubRepository:
    """`HuggingFaceTB/SmolLM2-135M`: bfloat16, tied embeddings, byte-level BPE with single digits."""
    tokenizer = _byte_level(400, first=[END, "<|im_start|>", "<|im_end|>"], last=[], split_digits=True)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": 24,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "model_type": "llama",
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-05,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": tokenizer.get_vocab_size(),
    }
    tensors = {name: tensor.bfloat16() for name, tensor in _weights(config, 4).items()}
    special = {"bos_token": END, "eos_token": END, "unk_token": END}
    files = {
        "config.json": _json(config),
        "generation_config.json": _json({"bos_token_id": 0, "eos_token_id": 0}),
        "model.safetensors": save(tensors, {"format": "pt"}),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": _json({"tokenizer_class": "GPT2Tokenizer", "model_max_length": 8192} | special),
        "special_tokens_map.json": _json(special),
        **_vocabulary_files(tokenizer),
        "README.md": b"---\nlicense: apache-2.0\n---\n",
    }
    return HubRepository("model", "HuggingFaceTB/SmolLM2-135M", {"main": files}, licence="apache-2.0")


def wrapped_gemma3(layout: str) -> HubRepository:
    """`google/gemma-3-4b-pt` in small: the text model beside an image tower, under the names of before or of today."""
    tokenizer = _sentencepiece_bpe(512)
    text: dict[str, Any] = {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "hidden_size": 16,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "sliding_window": 16,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    tensors = _weights(text, 5)
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "bos_token_id": 2,
        "eos_token_id": [1, 106],
        "mm_tokens_per_image": 1,
        "text_config": text,
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 16, "num_hidden_layers": 1},
    }
    before = {"before": "language_model.model.", "today": "model.language_model."}[layout]
    stored = {name.replace("model.", before, 1): tensor for name, tensor in tensors.items()}
    tower = {"before": "vision_tower.", "today": "model.vision_tower."}[layout]
    stored[tower + "encoder.layers.0.mlp.fc1.weight"] = torch.ones(32, 16)
    files = {
        "config.json": _json(config),
        "model.safetensors": save(stored, {"format": "pt"}),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": _json({"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}),
    }
    return HubRepository("model", f"us/gemma-3-{layout}", {"main": files})


def byte_level_tokenizer(vocabulary: int, specials: list[str]) -> Tokenizer:
    """A tokenizer of GPT-2's kind with special tokens, trained on a few lines."""
    return _byte_level(vocabulary, first=[], last=specials)
