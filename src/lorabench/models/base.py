"""The frozen base model: loaded once, scored and trained through adapters, never changed itself."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lorabench.core.device import release_memory, synchronize
from lorabench.core.errors import ModelError
from lorabench.core.imports import import_at_once
from lorabench.fast.choice import kernels_for
from lorabench.fast.declarations import MAX_LOGITS
from lorabench.fast.dropout import Draws, drawn_by, dropping
from lorabench.fast.families import read_decoder
from lorabench.fast.float8 import hold_in_float8
from lorabench.fast.forward import Decoder, Uploaded
from lorabench.fast.gpu.captured import CapturedSteps, can_capture
from lorabench.fast.kernels import Kernels
from lorabench.fast.known import NotFast, can_pack, inner_model, logits_of
from lorabench.fast.segments import attention_within
from lorabench.models.causality import Ids, ScoreChanges, find_changes, require_causal
from lorabench.models.checkpointed_layers import checkpointed_layers, layers_of
from lorabench.models.loaded import has_virtual_tokens, longest_document, vocabulary_size
from lorabench.models.quantized import Quantization, keep_scales, keep_unpacked, loading_options
from lorabench.models.shape import read_config
from lorabench.models.side_by_side import Sharing, forget_lengths, grouped, sharing_of
from lorabench.models.text_part import TEXT_PREFIXES, is_wrapper, require_no_encoder_decoder
from lorabench.tokens.packing import IGNORED, PackedBatch

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS: dict[str, Precision] = {name: name for name in DTYPES}
"""By their names, as users write them."""
HEAD_CHUNK = 256
"""Tokens whose logits are held at once."""


@dataclass(frozen=True)
class ExecutionPath:
    """Which computation ran: ours, or PEFT's and Transformers' own, and why."""

    kind: Literal["fast", "reference"]
    reason: str = ""


class FrozenBase:
    """A causal language model on a device, in a precision, with no parameter that requires a gradient.

    `model` is Transformers' model, or PEFT's around it while a saved adapter is scored. `vocabulary_size` is the number
    of tokens that it has embeddings and logits for.
    """

    def __init__(self, model: Any, device: torch.device, precision: Precision) -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self.num_parameters: int = sum(parameter.numel() for parameter in model.parameters())
        self.num_bytes: int = model.get_memory_footprint()
        """Of the weights as they are held, without the scales of quantised ones."""
        self.vocabulary_size = vocabulary_size(model)
        self.dropout_modules: list[torch.nn.Module] = []
        """The adapter's dropout. It is on in `loss` only; the base's own dropout is always off."""
        self.has_wide_parts = False
        """Whether weights of a base in half precision are held in float32, because they are trained."""
        self.folder: Path | None = None
        """Where it was read from; None where the model was given."""
        self.num_beside = 0
        """Other runs whose rows were in a pass with those of this base's adapter, at most."""
        self.execution = ExecutionPath("reference")
        self.checkpointing = False
        """Whether `loss` keeps a layer's inputs alone and computes it anew backwards; till a path is chosen again."""
        self._packs = False
        """Whether documents can share a pass laid flat, told apart by our attention."""
        self._sharing: Sharing = "one document"
        """What shares a pass otherwise."""
        self._fast_kernels: Kernels | None = None
        self.captures = True
        """Whether steps become CUDA graphs where they can be; till a path is chosen again."""
        self._captured: CapturedSteps | None = None
        self.decoder: Decoder | None = None
        """What the fast path computes; None on the other one."""
        self.choose_path()

    def choose_path(self) -> None:
        """Read the model anew, after an adapter was attached or taken off, and take the fast path where it applies."""
        kernels = kernels_for(self.device.type, DTYPES[self.precision])
        self.checkpointing = False
        self.captures, self._captured = True, None
        self._packs = can_pack(self.model)
        try:
            self.decoder = read_decoder(self.model, kernels)
            self._fast_kernels = kernels
            self.execution = ExecutionPath("fast", kernels.reason)
        except NotFast as answer:
            self.decoder = None
            self._sharing = sharing_of(self.model)
            alone = self._sharing == "one document" and not self._packs
            self.execution = ExecutionPath("reference", f"{answer}; one document a pass" if alone else str(answer))

    def twin(self) -> FrozenBase:
        """A base over the same weights, for an adapter of its own. Call while none is attached."""
        twin = FrozenBase(self.model_for_another(), self.device, self.precision)
        twin.folder = self.folder
        return twin

    def model_for_another(self) -> Any:
        """Transformers' model over the same weights, for another adapter beside. Call while none is attached."""
        shared = {id(tensor): tensor for tensor in (*self.model.parameters(), *self.model.buffers())}
        return copy.deepcopy(self.model, shared)

    @property
    def compile_seconds(self) -> float:
        """What compiling the kernels took in this process so far: 0 where they were kept from before."""
        return 0.0 if self._fast_kernels is None else self._fast_kernels.compile_seconds

    def use_reference_path(self, reason: str) -> None:
        """Compute as Transformers and PEFT do until the path is chosen again: the yardstick of the fast one."""
        self._sharing = sharing_of(self.model)
        self.decoder = None
        self.execution = ExecutionPath("reference", reason)

    def score_changes(self) -> ScoreChanges:
        """Nats by which a token's score changes at random, or with later tokens; zero for a causal model.

        Only the model's own forward pass is tried: on the fast path, and where documents share a pass, every part is
        known and attention is masked by ourselves. Random states stay as they were.
        """
        if self.decoder is not None or self._packs:
            return ScoreChanges(0.0, 0.0)

        def logits(ids: Ids) -> Tensor:
            with torch.inference_mode():
                return self._logits(torch.from_numpy(ids).to(self.device))

        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            return find_changes(
                logits,
                vocabulary_size=self.vocabulary_size,
                longest=longest_document(self.model),
                num_parameters=self.num_parameters,
                dtype=DTYPES[self.precision],
                rows_mix=hasattr(self.model, "peft_type"),  # Lily's router takes the mean over a batch
            )

    def token_nll(self, batch: PackedBatch) -> Tensor:
        """Nats of each target, float32 [T]; 0 where nothing is scored. No gradient, no dropout.

        Raises ModelError for a token that the model does not know.
        """
        self.check_tokens(batch)
        if self.decoder is not None:
            return self.decoder.token_nll(batch)
        with torch.inference_mode():
            if not self._packs:
                nll = torch.zeros(len(batch.targets), device=self.device)
                for places, losses in self._group_nll(batch):
                    nll[places] = losses
                return nll
            hidden, targets = self._hidden(batch), torch.from_numpy(batch.targets).to(self.device)
            chunks = zip(hidden.split(HEAD_CHUNK), targets.split(HEAD_CHUNK), strict=True)
            return torch.cat([self._chunk_nll(states, wanted) for states, wanted in chunks])

    def send(self, batch: PackedBatch) -> PackedBatch | Uploaded:
        """A batch for `loss`, on its way to the device already where the fast path computes it."""
        return batch if self.decoder is None else self.decoder.upload(batch)

    def loss(self, batch: PackedBatch | Uploaded, row_seeds: Sequence[int] | None = None) -> Tensor:
        """Nats summed over the scored targets, float32 scalar; differentiable in the adapter's parameters.

        Each row's dropout is drawn by its seed [R]; without seeds by torch's random state. Logits are held for a chunk
        of tokens at a time; of a model that we do not know, for the whole batch.
        Raises ModelError for a token that the model does not know.
        """
        packed = batch.packed if isinstance(batch, Uploaded) else batch
        self.check_tokens(packed)
        seeds = row_seeds if self.dropout_modules else None
        if self.decoder is None and not self._packs:
            draws = None if seeds is None else Draws.of_segments(packed, seeds, self.device)
            with dropping(self.dropout_modules), self._layers():
                return torch.stack([losses.sum() for _, losses in self._group_nll(packed, draws)]).sum()
        with drawn_by(None if seeds is None else Draws.of_rows(packed, seeds, self.device)):
            if self.decoder is not None:
                return self.decoder.loss(batch, checkpointing=self.checkpointing)
            with dropping(self.dropout_modules), self._layers(packed.segment_starts):
                hidden, targets = self._hidden(packed), torch.from_numpy(packed.targets).to(self.device)
        chunks = zip(hidden.split(HEAD_CHUNK), targets.split(HEAD_CHUNK), strict=True)
        sums = [checkpoint(self._chunk_sum, states, wanted, use_reentrant=False) for states, wanted in chunks]
        return torch.stack(sums).sum()

    def add_gradients(
        self, batch: PackedBatch | Uploaded, row_seeds: Sequence[int], num_scored: int, scaler: torch.amp.GradScaler
    ) -> Tensor:
        """Add the gradients of the batch's loss ÷ `num_scored`, scaled; returns the loss as `loss` does, detached."""
        captured = self._captured_loss(batch, num_scored, scaler)
        if captured is not None:
            return captured
        loss = self.loss(batch, row_seeds)
        torch.autograd.backward(scaler.scale(loss / num_scored))
        return loss.detach()

    def _captured_loss(
        self, batch: PackedBatch | Uploaded, num_scored: int, scaler: torch.amp.GradScaler
    ) -> Tensor | None:
        """As `add_gradients`, by a CUDA graph; None where this batch has none."""
        if self.decoder is None or self.checkpointing or self.dropout_modules or not isinstance(batch, Uploaded):
            return None
        if self._captured is None:
            self.captures = self.captures and can_capture(self.decoder, self.device)
        if not self.captures:
            return None
        self._captured = self._captured or CapturedSteps(self.decoder, self.trained)
        self.check_tokens(batch.packed)
        factor = scaler.scale(torch.full((), 1.0 / num_scored, device=self.device))
        loss = self._captured.add_gradients(batch, factor)
        if self._captured.problem:
            self.captures = False
            self.execution = ExecutionPath("fast", f"no CUDA graphs, so slower: {self._captured.problem}")
        return loss

    @property
    def trained(self) -> list[nn.Parameter]:
        """The adapter's parameters."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @property
    def has_graphs(self) -> bool:
        """Whether steps are CUDA graphs by now."""
        return self._captured is not None and self._captured.num_graphs > 0

    def clock(self) -> float:
        """Seconds that pass while this base is computed with."""
        return time.perf_counter()

    @property
    def can_checkpoint(self) -> bool:
        """Whether `checkpointing` is possible: layers that are known, and no keys and values of virtual tokens."""
        return self.decoder is not None or (bool(layers_of(self.model)) and not has_virtual_tokens(self.model))

    @property
    def can_pad(self) -> bool:
        """Whether prompts of several lengths can be continued at once: a family that we know, no virtual tokens."""
        return (self.decoder is not None or self._packs) and not has_virtual_tokens(self.model)

    @property
    def longest_text(self) -> int:
        """Tokens that the model has positions for, beside an adapter's virtual tokens."""
        return longest_document(self.model)

    def synchronize(self) -> None:
        """Wait for the device, so that a clock tells the truth."""
        synchronize(self.device)

    def release_memory(self) -> None:
        """Give cached blocks back, and those of CUDA graphs, which are captured anew when they are needed."""
        self._captured = None
        release_memory(self.device)

    def free(self) -> None:
        """Let go of the weights; the base cannot be used afterwards."""
        self.decoder = self._captured = None
        del self.model
        self.release_memory()

    def check_tokens(self, batch: PackedBatch) -> None:
        """Raise ModelError for a token that the model does not know."""
        largest = max(int(batch.input_ids.max()), int(batch.targets.max()))
        if largest >= self.vocabulary_size:
            raise ModelError(
                f"the text holds token {largest}, but the model knows {self.vocabulary_size} tokens; the tokenizer "
                "belongs to another model"
            )

    def _hidden(self, batch: PackedBatch) -> Tensor:
        model = inner_model(self.model)
        with self._mixed(), attention_within(model, batch.segment_starts):
            output = model.base_model(
                input_ids=torch.from_numpy(batch.input_ids).to(self.device)[None],
                position_ids=torch.from_numpy(batch.position_ids).to(self.device)[None],
                use_cache=False,
            )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def _group_nll(self, batch: PackedBatch, draws: Sequence[Draws] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Of segments that share a pass: places of their tokens in the batch, int64 [N], and nats of the targets.

        `draws` [S] are those of each segment's dropout.
        """
        ids, targets = (torch.from_numpy(array).to(self.device) for array in (batch.input_ids, batch.targets))
        for group in grouped(batch.segment_starts, self._sharing, MAX_LOGITS // self.vocabulary_size):
            places, real = (torch.from_numpy(array).to(self.device) for array in (group.places, group.real))
            chosen = None if draws is None else [draws[index] for index in group.documents]
            with drawn_by(None if chosen is None else Draws.side_by_side(chosen, real.shape[1])):
                logits = self._logits(ids[places]).float()
            wanted = targets[places].masked_fill(~real, IGNORED)
            losses = functional.cross_entropy(
                logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
            )
            yield places[real], losses[real.flatten()]

    def _logits(self, ids: Tensor) -> Tensor:
        """Logits by the model's own forward pass: token ids [B, T] -> [B, T, V]."""
        options = {} if has_virtual_tokens(self.model) else {"use_cache": False}
        if self._sharing != "documents":
            forget_lengths(self.model)
        with self._mixed(), _without_deprecations():
            logits: Tensor = self.model(input_ids=ids, **options).logits
        return logits[:, -ids.shape[1] :]  # of virtual tokens, which come first, nothing is scored

    def _mixed(self) -> torch.autocast:
        """Products in half precision where trained weights are held in float32."""
        wide = self.precision != "fp32" and self.has_wide_parts
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision] if wide else None, enabled=wide)

    def _layers(self, bounds: npt.NDArray[np.int32] | None = None) -> AbstractContextManager[None]:
        """How Transformers' own layers are computed in training; `bounds` are of documents laid flat."""
        return checkpointed_layers(self.model, self.dropout_modules, bounds) if self.checkpointing else nullcontext()

    def _chunk_nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        with self._mixed():
            logits = logits_of(self.model, hidden)
        return functional.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="none")

    def _chunk_sum(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return self._chunk_nll(hidden, targets).sum()


def import_architecture(folder: Path) -> None:
    """Import the modules that the model's class needs, so that loading it can be timed by itself."""
    import_at_once("transformers.modeling_utils", "peft")
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(str(read_config(folder).get("model_type")), ""), None)


def load_base(folder: Path, *, precision: Precision, device: str, quantization: Quantization = "none") -> FrozenBase:
    """Load a model folder's safetensors, all of them; of a model of more than text, its text model alone.

    Raises ModelError where they do not make the whole model, or not a causal one, MissingExtraError for a quantisation
    whose library is not installed.
    """
    import_at_once("transformers.modeling_utils", "peft")
    from transformers import CONFIG_MAPPING, AutoConfig
    from transformers.utils import logging

    config = read_config(folder)
    if config.get("model_type") not in CONFIG_MAPPING:
        code = ", and code of its own, which the folder brings, is never run" if "auto_map" in config else ""
        raise ModelError(f"{folder}: Transformers knows no model_type {str(config.get('model_type'))[:80]!r}{code}")
    require_no_encoder_decoder(config, str(folder))
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    options = loading_options(quantization, DTYPES[precision])
    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        if settings.model_type == "rwkv":
            settings.rescale_every = 0  # halves deep weights in place to fit float16: an adapter there would be doubled
        model, found = _model_class(settings, folder).from_pretrained(
            folder,
            config=settings.get_text_config(),
            dtype=DTYPES[precision],
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            key_mapping=TEXT_PREFIXES if is_wrapper(config) else None,
            **options,
        )
    except (MemoryError, ModelError):
        raise
    except Exception as error:  # Transformers raises whatever a strange folder makes it meet
        message = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder}: the model cannot be loaded: {message or type(error).__name__}") from None
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(
            f"{folder}: its weights lack {missing[0]}" + (f" and {len(missing) - 1} more" * bool(missing[1:]))
        )
    keep_unpacked(model)
    keep_scales(model)
    if quantization == "fp8":
        try:
            hold_in_float8(model)
        except ValueError as error:
            raise ModelError(f"{folder}: it cannot be held in fp8: {error}") from None
    base = freeze(model.to(device), torch.device(device), precision)
    base.folder = folder
    require_causal(base.score_changes, str(folder))
    return base


def _model_class(settings: Any, folder: Path) -> Any:
    """Transformers' causal language model for a configuration's text part. Raises ModelError where there is none."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    text = settings.get_text_config()
    if type(text) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(text)]
    whole = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(settings))
    if getattr(whole, "config_class", None) is type(text):
        return whole
    raise ModelError(
        f"{folder}: Transformers has no causal language model for the type {text.model_type}; accepted are decoders "
        "(GPT-2, Llama)"
    )


def freeze(model: Any, device: torch.device, precision: Precision) -> FrozenBase:
    """Make a frozen base of a loaded model: no gradients, and the model's own dropout off for good.

    GPT-2 was published with a dropout of 0.1; only the adapter's dropout is an axis of an experiment.
    """
    model.requires_grad_(False)
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return FrozenBase(model, device, precision)


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """PEFT gives virtual tokens' keys and values by a name that Transformers has changed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`past_key_values` is deprecated")
        yield
