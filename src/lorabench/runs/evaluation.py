"""Scores one model, with or without an adapter, on one text: the same metrics as in a benchmark."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorabench.core.device import Device, choose_device
from lorabench.core.errors import InputError, ModelError
from lorabench.core.machine import prepare_process
from lorabench.core.progress import Progress
from lorabench.methods.saved import attach_saved, num_virtual_tokens
from lorabench.models.base import PRECISIONS, FrozenBase, load_base
from lorabench.models.entry import ModelLocation
from lorabench.models.locate import locate_model
from lorabench.models.shape import read_model_shape
from lorabench.records.schema import Scores
from lorabench.records.store import check_adapter_of_run
from lorabench.records.versions import derived_figures
from lorabench.scoring.documents import DocumentScores, score_documents
from lorabench.scoring.text import ScoredText, read_scored_text
from lorabench.tokens.chat import ChatTokeniser, encode_documents
from lorabench.tokens.tokenizer import Tokeniser

_LOG = logging.getLogger("lorabench")
MAX_DEFAULT_CONTEXT_LENGTH = 8192
"""Attention's cost grows with the square of the window; a longer one has to be asked for."""


def evaluate(
    model: str,
    data: Path | str | Mapping[str, Any],
    *,
    split: str | None = None,
    max_bytes: int | None = None,
    adapter: Path | str | None = None,
    context_length: int | None = None,
    stride: int | None = None,
    precision: str = "auto",
    text_field: str = "text",
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score every byte of every document of a file, or of one split of a corpus.

    `data` is what `datasets` takes: a catalogue name, the path of files, or a mapping. A file is scored whole; with
    `split` it is prepared as in an experiment, and that split is scored. Of a catalogue corpus the default is
    validation. `max_bytes`: only what an experiment's budget of so many bytes would take.

    Returns `negative_log_likelihood` (nats, summed), `num_tokens` (scored), `num_bytes`, `num_words`, `num_documents`,
    `effective_documents` (of one length that weigh as much), and the figures that follow from the sums; one that is too
    large for a float is None. `context_length` is in tokens (default: the model's own limit, at most 8,192).
    `precision`: that of runs, `auto` (what the device has in hardware), or fp32, bf16 or fp16; the figures name the one
    used. Raises InputError for a model, adapter or file that cannot be used, DiskError for a run's adapter that is not
    as the run wrote it.
    """
    manner = Manner(split, max_bytes, context_length, stride, precision, text_field, device)
    ((scored,),) = score_texts([(model, adapter)], [data], manner, progress)
    return scored.figures


@dataclass(frozen=True)
class Manner:
    """How texts are read and scored; as the arguments of `evaluate`."""

    split: str | None = None
    max_bytes: int | None = None
    context_length: int | None = None
    stride: int | None = None
    precision: str = "auto"
    text_field: str = "text"
    device: str | None = None


@dataclass(frozen=True)
class ScoredDocuments:
    """What a model made of one text: the figures of the whole, and the sums of each document."""

    figures: dict[str, Any]
    documents: DocumentScores


def score_texts(
    models: Sequence[tuple[str, Path | str | None]],
    data: Sequence[Path | str | Mapping[str, Any]],
    manner: Manner,
    progress: Progress | None = None,
) -> list[list[ScoredDocuments]]:
    """Score each text as `evaluate` does with each model, alone or with an adapter, one model after the other.

    Every text is read once, before any model is loaded, and every model loaded once. Raises as `evaluate`.
    """
    _check_settings(manner.precision, manner.stride)
    for _, adapter in models:
        if adapter is not None:
            check_adapter_of_run(Path(adapter))
    where = _prepare_device(manner.device)
    texts = [
        read_scored_text(
            entry, split=manner.split, max_bytes=manner.max_bytes, text_field=manner.text_field, progress=progress
        )
        for entry in data
    ]
    named = [(str(entry), text) for entry, text in zip(data, texts, strict=True)]
    manner = replace(manner, precision=where.precision if manner.precision == "auto" else manner.precision)
    overall = _Overall([text for _ in models for text in texts], progress)
    return [_score_with(model, adapter, named, manner, where, overall) for model, adapter in models]


class _Overall:
    """Tells how much of all that is to be scored is scored, by bytes, so that the time left is that of the whole."""

    def __init__(self, texts: Sequence[ScoredText], progress: Progress | None) -> None:
        """`texts`: in the order in which they are scored, one that several models score once for each."""
        self.progress = progress
        self._sizes = [sum(piece.num_bytes for piece in text.drawn.pieces) for text in texts]
        self._num_begun = 0

    def begin(self, name: str) -> Callable[[int, int], None]:
        """What is told how many of the next text's tokens are scored, and how many there are."""
        before, size = sum(self._sizes[: self._num_begun]), self._sizes[self._num_begun]
        self._num_begun += 1
        which = f" {self._num_begun} of {len(self._sizes)}:" if len(self._sizes) > 1 else ""

        def tell(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(f"scoring{which} {name}", before + size * done / max(1, total), sum(self._sizes))

        return tell


def _score_with(
    model: str,
    adapter: Path | str | None,
    texts: Sequence[tuple[str, ScoredText]],
    manner: Manner,
    where: Device,
    overall: _Overall,
) -> list[ScoredDocuments]:
    """The texts, by how they are called, scored with one model."""
    location = locate_model(model, progress=overall.progress)
    window = _choose_window(manner.context_length, location, adapter)
    tokeniser = Tokeniser(_tokenizer_folder(location.folder, adapter), location.folder)
    base = _load(location, adapter, manner.precision, where)
    settings = {
        "model": location.name,
        "adapter": None if adapter is None else str(adapter),
        "precision": manner.precision,
        "context_length": window,
        "stride": min(manner.stride or window, window),
    }
    scored = []
    for name, text in texts:
        chat = None if text.format == "text" else ChatTokeniser(tokeniser, location.name)
        encoded = encode_documents(tokeniser, chat, text.drawn.pieces)
        pieces = score_documents(
            base,
            text.drawn.pieces,
            encoded.tokens,
            prefix=encoded.prefix,
            context_length=window,
            stride=manner.stride,
            marks=encoded.marks,
            progress=overall.begin(name),
        )
        problem = f"{_name(location, adapter)}: the loss on {name} is not finite in {manner.precision}"
        _check_finite(pieces, problem, manner.precision)
        documents = pieces.of_documents(text.drawn)
        about = {
            "data": name,
            "split": text.split,
            "data_revision": text.revision,
            "format": text.format,
            "template": None if chat is None else chat.template.name,
        }
        scored.append(ScoredDocuments(settings | about | _figures(documents.total()), documents))
    base.free()
    return scored


def _load(location: ModelLocation, adapter: Path | str | None, precision: str, device: Device) -> FrozenBase:
    """The model, with the adapter where there is one."""
    base = load_base(location.folder, precision=PRECISIONS[precision], device=str(device))
    if adapter is not None:
        attach_saved(base, Path(adapter))
    return base


def _tokenizer_folder(model: Path, adapter: Path | str | None) -> Path:
    """The adapter's folder where it brings a whole tokenizer other than the model's, as one with added tokens does."""
    files = [] if adapter is None else [Path(adapter) / name for name in ("tokenizer.json", "tokenizer_config.json")]
    if not files or not all(file.is_file() for file in files):
        return model
    own, same = files[0], model / "tokenizer.json"
    return model if same.is_file() and own.read_bytes() == same.read_bytes() else own.parent


def _prepare_device(name: str | None) -> Device:
    """The device, its reservations being logged, and this process ready to compute on it."""
    device = choose_device(name)
    if device.note:
        _LOG.warning("%s", device.note)
    prepare_process()
    return device


def _check_finite(scores: DocumentScores, problem: str, precision: str) -> None:
    remedy = "fp16 may be too narrow for it: give precision fp32" if precision == "fp16" else "weights are damaged"
    if not math.isfinite(scores.nll.sum()):
        raise ModelError(f"{problem}; {remedy}")


def _figures(scores: Scores) -> dict[str, Any]:
    """The sums, and what follows from them."""
    derived = derived_figures(scores)
    return {
        **scores.model_dump(),
        "bits_per_byte": derived["bits_per_byte"],
        "token_perplexity": derived["perplexity"],
        "word_perplexity": derived["word_perplexity"],
        "byte_perplexity": derived["byte_perplexity"],
        "bits_per_token": derived["bits_per_token"],
    }


def _check_settings(precision: str, stride: int | None) -> None:
    if precision != "auto" and precision not in PRECISIONS:
        raise InputError(f"precision: {precision!r} is not accepted; accepted: auto, {', '.join(PRECISIONS)}")
    if stride is not None and stride < 1:
        raise InputError(f"stride: {stride} is not accepted; at least one new token per window")


def _name(location: ModelLocation, adapter: Path | str | None) -> str:
    return location.name if adapter is None else f"{location.name} with {adapter}"


def _choose_window(wanted: int | None, location: ModelLocation, adapter: Path | str | None) -> int:
    """Tokens of text in a window: what the model reads, less what the adapter takes for itself."""
    taken = 0 if adapter is None else num_virtual_tokens(Path(adapter))
    who = _name(location, adapter) if taken else location.name
    limit = read_model_shape(location.folder).max_context_length - taken
    if limit < 1:
        raise InputError(f"{who}: virtual tokens fill the whole context, so that no text can be read")
    if wanted is None:
        return min(limit, MAX_DEFAULT_CONTEXT_LENGTH)
    if not 1 <= wanted <= limit:
        raise InputError(f"context length: {wanted} is not accepted; {who} reads 1 to {limit} tokens")
    return wanted
