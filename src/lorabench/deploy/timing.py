"""What it costs to use a form: loading, memory, the first token, reading and writing, in the process that calls it.

The process imports nothing but what the form's engine needs, so that its memory is that of a user's program.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from lorabench.core.energy import ProcessorEnergy
from lorabench.core.gpu_meter import GpuMeter
from lorabench.deploy.engine import ENGINES, Runtime, Source
from lorabench.records.deployment import Round

_PROMPTS = (128, 512)
_DECODED = 32
"""Tokens written for a figure, by each sequence."""
_SHORT_PROMPT = 16
"""Before writing is timed."""
_BATCH = 8
_FIRST_TOKEN, _NUM_TOKENS = 10, 200
"""Of prompts, which go round these token ids: what they say costs nothing."""


def time_form(source: Source) -> Round:
    """Load the form and use it once in every way that is timed; the first use of each way is not counted."""
    engine = ENGINES.get(source.engine)
    engine.prepare()
    card = None if source.device == "cpu" else GpuMeter(source.device)
    empty = None if card is None else card.used_bytes()
    started = time.perf_counter()
    runtime = engine.runtime(source)
    load_seconds = time.perf_counter() - started
    resident, device_bytes = psutil.Process().memory_info().rss, _added(card, empty)
    _read(runtime, _SHORT_PROMPT)
    fitting = [length for length in _PROMPTS if length < runtime.max_tokens]
    longest = fitting[-1] if fitting else min(_PROMPTS[0], runtime.max_tokens - 1)
    first_token = {length: _seconds(partial(_read, runtime, length)) for length in {*fitting, longest}}
    decode, decode_8 = _decode(runtime, 1, source.device), _decode(runtime, _BATCH, source.device)
    return Round(
        load_seconds=load_seconds,
        resident_bytes=resident,
        peak_bytes=_peak_bytes(),
        weight_bytes=runtime.weight_bytes,
        device_bytes=device_bytes,
        device_peak_bytes=_added(card, empty),
        ttft_seconds_128=first_token.get(128),
        ttft_seconds_512=first_token.get(512),
        prefill_tokens_per_second=longest / first_token[longest],
        decode_tokens_per_second=decode.tokens_per_second,
        decode_tokens_per_second_8=decode_8.tokens_per_second,
        decode_joules_per_token=decode.joules_per_token,
    )


def _added(card: GpuMeter | None, empty: int | None) -> int | None:
    """Bytes on the card beyond those before; libraries keep there what they once took."""
    used = None if card is None else card.used_bytes()
    return None if used is None or empty is None else max(0, used - empty)


def _read(runtime: Runtime, length: int, num_sequences: int = 1) -> list[int]:
    """The next token of each sequence: whoever has it has waited for the device."""
    runtime.prefill([_FIRST_TOKEN + place % _NUM_TOKENS for place in range(length)], num_sequences)
    return runtime.latest


def _write(runtime: Runtime) -> list[int]:
    """As `_read`."""
    for _ in range(_DECODED):
        runtime.step()
    return runtime.latest


class _Decoded(NamedTuple):
    """Of all sequences together."""

    tokens_per_second: float
    joules_per_token: float | None


def _decode(runtime: Runtime, num_sequences: int, device: str) -> _Decoded:
    _read(runtime, min(_SHORT_PROMPT, runtime.max_tokens - _DECODED - 2), num_sequences)
    runtime.step()
    energy = ProcessorEnergy() if device == "cpu" else GpuMeter(device)
    num_tokens = _DECODED * num_sequences
    seconds, joules = _seconds(partial(_write, runtime)), energy.joules()
    return _Decoded(num_tokens / seconds, None if joules is None else joules / num_tokens)


def _seconds(deed: Callable[[], object]) -> float:
    started = time.perf_counter()
    deed()
    return time.perf_counter() - started


def _peak_bytes() -> int:
    """Largest resident set of this process so far."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
