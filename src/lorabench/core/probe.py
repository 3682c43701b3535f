"""How fast a core of this machine multiplies matrices, whatever else the machine is doing. Imports no torch.

Processor time of one thread: the wall clock, and threads that wait for one another, would measure what other programs
leave over at that moment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

_SIZE = 256
_NUM_PROBES = 200
"""Of a third of a millisecond each: the fastest was not interrupted."""
_ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""Read when numpy is imported, so that it takes a process of its own (some 0.3 s)."""


def multiply_adds_per_core() -> float:
    """Per second of processor time: float32 products with numpy."""
    command = [sys.executable, "-m", "lorabench.core.probe"]
    done = subprocess.run(command, env=os.environ | _ONE_THREAD, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _measure() -> float:
    import numpy as np

    left = np.full((_SIZE, _SIZE), 0.5, dtype=np.float32)
    right = left.copy()
    seconds = []
    for _ in range(_NUM_PROBES):
        started = time.process_time()
        left @ right
        seconds.append(time.process_time() - started)
    return _SIZE**3 / min(seconds)


if __name__ == "__main__":
    print(_measure())
