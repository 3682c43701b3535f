"""The first Ctrl-C says what happens now, whatever it breaks into."""

from __future__ import annotations

import os
import signal
import threading
import time

from lorabench.runs.stopping import stop_in_good_order


def test_ctrl_c_during_a_write_breaks_nothing() -> None:
    """The handler runs while the main thread waits for room in a full pipe, within a write to the same stream."""
    reader, writer = os.pipe()
    read: list[bytes] = []

    def drain() -> None:
        time.sleep(0.3)
        while chunk := os.read(reader, 65536):
            read.append(chunk)

    draining = threading.Thread(target=drain)
    draining.start()
    with open(writer, "wb") as stream:

        def say() -> None:
            stream.write(b"stopping")
            stream.flush()

        with stop_in_good_order(say) as is_asked:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            stream.write(b"." * 1_000_000)
            stream.flush()
            assert is_asked()
    draining.join()
    os.close(reader)
    assert b"".join(read) == b"." * 1_000_000 + b"stopping"
