"""llama.cpp, through llama-cpp-python: its quantiser."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lorabench.core.errors import RunError, require_package

QUANTISED = ("Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "IQ4_NL")
"""Types that llama.cpp's quantiser makes, by its names."""
LORA_FILE = "adapter.gguf"
"""The name of an adapter that is to be put on the other file of its folder."""
Importance = Mapping[str, npt.NDArray[np.float32]]
"""By llama.cpp's name of a tensor: the mean square of what each of its columns is multiplied with."""


def require_installed() -> None:
    """Raises MissingExtraError where llama-cpp-python is not installed."""
    require_package("llama_cpp", "llama.cpp (built in about four minutes on two cores)", "gguf")


def require_llama() -> Any:
    """The module. Raises as `require_installed`."""
    require_installed()
    import llama_cpp

    return llama_cpp


def quantise(wide: Path, output: Path, type_name: str, importance: Importance | None = None) -> None:
    """Write the file `wide`, which holds float32, as one of the `QUANTISED` types.

    `importance` weighs the errors of each tensor's columns. Raises RunError where it fails.
    """
    llama = require_llama()
    settings = llama.llama_model_quantize_default_params()
    settings.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{type_name}")
    entries = (llama.llama_model_imatrix_data * (len(importance or ()) + 1))()  # ends with an empty one
    held = {name: np.ascontiguousarray(values, np.float32) for name, values in (importance or {}).items()}
    for entry, (name, values) in zip(entries, held.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if importance is not None:
        settings.imatrix = entries
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
