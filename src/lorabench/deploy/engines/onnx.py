"""ONNX Runtime: scores by the graph's own logits, writes with onnxruntime-genai."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorabench.core.errors import InputError, require_package
from lorabench.deploy.engine import Runtime, Scorer, Source, answer_in_turn, nll_of_targets

if TYPE_CHECKING:
    import torch

    from lorabench.runs.answering import Answering
    from lorabench.scoring.answers import Answers
    from lorabench.tokens.packing import PackedBatch

_GRAPH = "model.onnx"
_TIMED_TOKENS = 1024
"""Of each sequence's context where use is timed: memory for it is set aside at once."""


class _Scorer:
    """Scores segment by segment, each in a pass of its own without anything before it."""

    def __init__(self, source: Source) -> None:
        import onnxruntime
        import torch

        self.device = torch.device("cpu")
        self._source = source
        decoder = _model_settings(source.folder)["decoder"]
        self._empty = np.zeros((1, decoder["num_key_value_heads"], 0, decoder["head_size"]), np.float32)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = source.threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(source.folder / _GRAPH), options, providers=["CPUExecutionProvider"]
        )
        self._past = [each.name for each in self._session.get_inputs() if each.name.startswith("past_key_values.")]

    @property
    def longest_text(self) -> int:
        """See Scorer."""
        return _context_length(self._source.folder)

    def answers(self, asked: Answering) -> Answers:
        """One after the other."""
        return answer_in_turn(asked, partial(_Runtime, self._source))

    def token_nll(self, batch: PackedBatch) -> torch.Tensor:
        """See Scorer."""
        import torch

        nll = np.zeros(len(batch.input_ids), np.float32)
        for start, end in itertools.pairwise(batch.segment_starts.tolist()):
            targets = batch.targets[start:end]
            scored = targets >= 0
            logits = self.logits(batch.input_ids[start:end].tolist())
            nll[start:end][scored] = nll_of_targets(logits[scored], targets[scored])
        return torch.from_numpy(nll)

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """See Scorer."""
        row = np.array([list(ids)], np.int64)
        inputs = {"input_ids": row, "attention_mask": np.ones_like(row), **dict.fromkeys(self._past, self._empty)}
        found: npt.NDArray[np.float32] = self._session.run(["logits"], inputs)[0][0]
        return found


class _Runtime:
    """Writes greedily; of several sequences none ends before it is told to."""

    def __init__(self, source: Source, max_tokens: int = _TIMED_TOKENS) -> None:
        import onnxruntime_genai

        self._library = onnxruntime_genai
        config = onnxruntime_genai.Config(str(source.folder))
        threads = {"session_options": {"intra_op_num_threads": source.threads}}
        config.overlay(json.dumps({"model": {"decoder": threads}}))
        self._model = onnxruntime_genai.Model(config)
        self.max_tokens = min(max_tokens, _context_length(source.folder))
        self.weight_bytes = sum(path.stat().st_size for path in source.folder.glob(f"{_GRAPH}*"))
        self._generator: Any = None
        self._is_alone = True
        self.latest: list[int] = []

    def prefill(self, ids: Sequence[int], num_sequences: int) -> None:
        """See Runtime."""
        settings = self._library.GeneratorParams(self._model)
        settings.set_search_options(
            max_length=self.max_tokens, min_length=self.max_tokens, batch_size=num_sequences, do_sample=False
        )
        self._generator = self._library.Generator(self._model, settings)
        self._generator.append_tokens(np.array([list(ids)] * num_sequences, np.int32))
        self._is_alone = num_sequences == 1
        self._choose()

    def step(self) -> None:
        """See Runtime."""
        if self._is_alone:
            self._generator.append_tokens(np.array([self.latest], np.int32))
        self._choose()

    def _choose(self) -> None:
        if self._is_alone:  # by the logits: `min_length` would keep the library from choosing an end of text
            self.latest = [int(self._generator.get_logits()[0, -1].argmax())]
        else:
            self._generator.generate_next_token()
            self.latest = self._generator.get_next_tokens().tolist()


class OnnxEngine:
    """See Engine."""

    def versions(self) -> dict[str, str]:
        """Of its parts."""
        return {name: version(name) for name in ("onnxruntime", "onnxruntime-genai")}

    def require(self) -> None:
        """Raises MissingExtraError where onnxruntime-genai is not installed."""
        require_package("onnxruntime_genai", "a model for ONNX Runtime (onnxruntime-genai)", "onnx")

    def check_device(self, device: str) -> None:
        """Raises InputError for a GPU."""
        if device != "cpu":
            raise InputError(f"--device {device}: ONNX Runtime is installed for processors; give --device cpu")

    def prepare(self) -> None:
        """See Engine."""
        self.require()
        import onnxruntime_genai

        assert onnxruntime_genai

    def scorer(self, source: Source) -> Scorer:
        """See Engine."""
        return _Scorer(source)

    def runtime(self, source: Source) -> Runtime:
        """See Engine."""
        return _Runtime(source)


def type_counts(folder: Path) -> dict[str, int]:
    """Tensors by the bits that they are really held in: quantised ones by the nodes that use them."""
    import onnx

    graph = onnx.load(str(folder / _GRAPH), load_external_data=False).graph
    counts: dict[str, int] = {}
    parts: set[str] = set()
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "bits":
                counts[f"int{attribute.i}"] = counts.get(f"int{attribute.i}", 0) + 1
                parts |= set(node.input)
    for tensor in graph.initializer:
        if tensor.name not in parts:
            kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _context_length(folder: Path) -> int:
    return int(_model_settings(folder)["context_length"])


def _model_settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
    return settings


ENGINE = OnnxEngine()
