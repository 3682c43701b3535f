"""llama.cpp, through llama-cpp-python: its quantiser."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorabench.core.errors import MissingExtraError, RunError

QUANTISED = ("Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "IQ4_NL")
"""Types that llama.cpp's quantiser makes, by its names."""


def require_llama() -> Any:
    """The module. Raises MissingExtraError where it is not installed."""
    try:
        import llama_cpp
    except ImportError:
        raise MissingExtraError("llama.cpp (built in about four minutes on two cores)", "gguf") from None
    return llama_cpp


def quantise(wide: Path, output: Path, type_name: str) -> None:
    """Write the file `wide`, which holds float32, as one of the `QUANTISED` types. Raises RunError where it fails."""
    llama = require_llama()
    settings = llama.llama_model_quantize_default_params()
    settings.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{type_name}")
    with quietly():
        failed = llama.llama_model_quantize(os.fsencode(wide), os.fsencode(output), settings)
    if failed or not output.is_file():
        raise RunError(f"{output.name}: llama.cpp could not write the type {type_name}")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What llama.cpp tells of each tensor goes nowhere: it writes to the standard streams by itself."""
    kept = [os.dup(1), os.dup(2)]
    silent = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        yield
    finally:
        for number, copy in enumerate(kept, start=1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(silent)
