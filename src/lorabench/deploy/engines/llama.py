"""llama.cpp, through the low-level interface of llama-cpp-python: scores by its logits, writes as its servers do."""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lorabench.core.errors import InputError, ModelError
from lorabench.deploy.engine import Runtime, Scorer, Source, answer_in_turn, nll_of_targets
from lorabench.deploy.gguf.llama import LORA_FILE, quietly, require_installed, require_llama

if TYPE_CHECKING:
    import torch

    from lorabench.runs.answering import Answering
    from lorabench.scoring.answers import Answers
    from lorabench.tokens.packing import PackedBatch

_BATCH_TOKENS = 512
"""Read at once: llama.cpp's own default."""
_MAX_SEQUENCES = 8
_ALL_LAYERS = 999
"""More than any model has."""
_TIMED_TOKENS = 1024
"""Of each sequence's context where use is timed: memory for it is set aside at once."""


class _Llama:
    """A model and its context. Tokens go in as (token, position, sequence); logits come out of the last call."""

    def __init__(self, source: Source, num_sequences: int, max_tokens: int) -> None:
        self._library = require_llama()
        (path,) = (path for path in source.folder.glob("*.gguf") if path.name != LORA_FILE)
        with quietly():
            self._library.llama_backend_init()
            settings = self._library.llama_model_default_params()
            settings.n_gpu_layers = 0 if source.device == "cpu" else _ALL_LAYERS
            settings.main_gpu = int(source.device.partition(":")[2] or 0)
            self._model = self._library.llama_model_load_from_file(os.fsencode(path), settings)
            if not self._model:
                raise ModelError(f"{path}: llama.cpp cannot load it")
            self.weight_bytes = int(self._library.llama_model_size(self._model))
            self.trained_tokens = int(self._library.llama_model_n_ctx_train(self._model))
            self.max_tokens = min(self.trained_tokens, max_tokens)
            context = self._library.llama_context_default_params()
            context.n_ctx = self.max_tokens * num_sequences
            context.n_batch = context.n_ubatch = _BATCH_TOKENS
            context.n_seq_max = num_sequences
            context.n_threads = context.n_threads_batch = source.threads
            self._context = self._library.llama_init_from_model(self._model, context)
        if not self._context:
            raise ModelError(f"{path}: llama.cpp has no memory for a context of {context.n_ctx} tokens")
        if (source.folder / LORA_FILE).is_file():
            self._put_on(source.folder / LORA_FILE)
        self._batch = self._library.llama_batch_init(_BATCH_TOKENS, 0, 1)
        self.vocabulary_size = int(self._library.llama_vocab_n_tokens(self._library.llama_model_get_vocab(self._model)))

    def _put_on(self, path: Path) -> None:
        """An adapter. Raises ModelError where it is none of the model's."""
        with quietly():
            adapter = self._library.llama_adapter_lora_init(self._model, os.fsencode(path))
            if not adapter:
                raise ModelError(f"{path}: llama.cpp cannot put it on the model")
            adapters, scales = (self._library.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(1.0)
            if self._library.llama_set_adapters_lora(self._context, adapters, 1, scales):
                raise ModelError(f"{path}: llama.cpp cannot use it")
        self.weight_bytes += path.stat().st_size

    def clear(self) -> None:
        """Forget every sequence."""
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)

    def read(self, tokens: Sequence[tuple[int, int, int]], wanted: Sequence[bool]) -> npt.NDArray[np.float32]:
        """Read at most `_BATCH_TOKENS` tokens; the logits of those that are wanted, [W, V]."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for place, (token, position, sequence) in enumerate(tokens):
            batch.token[place] = token
            batch.pos[place] = position
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = sequence
            batch.logits[place] = wanted[place]
        if self._library.llama_decode(self._context, batch):
            raise ModelError(f"llama.cpp cannot read {len(tokens)} tokens from position {tokens[0][1]} on")
        pointer = self._library.llama_get_logits(self._context)
        count = sum(wanted) * self.vocabulary_size
        flat = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (count,))
        return flat.reshape(-1, self.vocabulary_size)


class _Scorer:
    """Scores segment by segment: one sequence that starts anew."""

    def __init__(self, source: Source) -> None:
        import torch

        self.device = torch.device("cpu")
        self._llama = _Llama(source, 1, source.context_length + 1)
        self._source = source

    @property
    def longest_text(self) -> int:
        """See Scorer."""
        return self._llama.trained_tokens

    def answers(self, asked: Answering) -> Answers:
        """One after the other, each in a sequence that starts anew."""
        return answer_in_turn(asked, partial(_Runtime, self._source, 1))

    def token_nll(self, batch: PackedBatch) -> torch.Tensor:
        """See Scorer."""
        import torch

        nll = np.zeros(len(batch.input_ids), np.float32)
        for start, end in itertools.pairwise(batch.segment_starts.tolist()):
            ids, targets = batch.input_ids[start:end], batch.targets[start:end]
            self._llama.clear()
            for first in range(0, len(ids), _BATCH_TOKENS):
                part = slice(first, first + _BATCH_TOKENS)
                scored = targets[part] >= 0
                logits = self._read(ids[part].tolist(), first, scored.tolist())
                nll[start + first : end][: len(scored)][scored] = nll_of_targets(logits, targets[part][scored])
        return torch.from_numpy(nll)

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """See Scorer."""
        self._llama.clear()
        parts = [
            self._read(
                ids[first : first + _BATCH_TOKENS], first, [True] * len(ids[first : first + _BATCH_TOKENS])
            ).copy()
            for first in range(0, len(ids), _BATCH_TOKENS)
        ]
        return np.concatenate(parts)

    def _read(self, ids: Sequence[int], first: int, wanted: Sequence[bool]) -> npt.NDArray[np.float32]:
        return self._llama.read([(token, first + place, 0) for place, token in enumerate(ids)], wanted)


class _Runtime:
    """Writes greedily in several sequences at once."""

    def __init__(self, source: Source, num_sequences: int, max_tokens: int) -> None:
        self._llama = _Llama(source, num_sequences, max_tokens)
        self.max_tokens = self._llama.max_tokens
        self.weight_bytes = self._llama.weight_bytes
        self._position = 0
        self.latest: list[int] = []

    def prefill(self, ids: Sequence[int], num_sequences: int) -> None:
        """See Runtime."""
        self._llama.clear()
        self.latest = []
        for sequence in range(num_sequences):
            for first in range(0, len(ids), _BATCH_TOKENS):
                part = ids[first : first + _BATCH_TOKENS]
                is_end = first + len(part) == len(ids)
                tokens = [(token, first + place, sequence) for place, token in enumerate(part)]
                logits = self._llama.read(tokens, [is_end and place == len(part) - 1 for place in range(len(part))])
            self.latest.append(int(logits[-1].argmax()))
        self._position = len(ids)

    def step(self) -> None:
        """See Runtime."""
        tokens = [(token, self._position, sequence) for sequence, token in enumerate(self.latest)]
        self.latest = self._llama.read(tokens, [True] * len(tokens)).argmax(axis=1).tolist()
        self._position += 1


class LlamaEngine:
    """See Engine."""

    def versions(self) -> dict[str, str]:
        """Of its parts."""
        return {"llama-cpp-python": version("llama-cpp-python")}

    def require(self) -> None:
        """Raises MissingExtraError where llama-cpp-python is not installed."""
        require_installed()

    def check_device(self, device: str) -> None:
        """Raises InputError for a GPU that it was not built for."""
        if device != "cpu" and not require_llama().llama_supports_gpu_offload():
            raise InputError(
                f"--device {device}: llama.cpp was built for the processor; give --device cpu, or build it anew with: "
                "CMAKE_ARGS='-DGGML_CUDA=on' pip install --force-reinstall --no-cache-dir llama-cpp-python"
            )

    def prepare(self) -> None:
        """See Engine."""
        require_llama()

    def scorer(self, source: Source) -> Scorer:
        """See Engine."""
        return _Scorer(source)

    def runtime(self, source: Source) -> Runtime:
        """See Engine."""
        return _Runtime(source, _MAX_SEQUENCES, _TIMED_TOKENS)


ENGINE = LlamaEngine()
