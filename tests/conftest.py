from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.marks import mount, unmount

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models only lose by threads, most of all beside other tests
os.environ.setdefault("WANDB_MODE", "offline")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests behind it has Ctrl-C ignored


def pytest_collection_finish() -> None:
    """What the imports made stays: each full collection of garbage would go through it for a third of a second."""
    gc.collect()
    gc.freeze()


FAMILIES = ("gpt2", "pythia", "gemma", "smollm2")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models of the real architectures, with tokenizers of the real kinds, seeded random weights."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            from tests.hub import model_repositories

            repository = model_repositories.gemma(set()) if family == "gemma" else getattr(model_repositories, family)()
            folder = tmp_path_factory.mktemp("models") / f"tiny-{family}"
            for name, content in repository.branches["main"].items():
                if not name.endswith((".gguf", ".bin", ".h5", ".msgpack")):
                    path = folder / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            made[family] = folder
        return made[family]

    return make


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, with the options of `mount` that the test gives as the fixture's parameter."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, request.param)
    yield folder
    unmount(folder)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LORABENCH_CACHE", str(folder))
    return folder


_NUM_THREADS = int(os.environ["OMP_NUM_THREADS"])


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """Forms are timed with threads of their own: tests after that would add in another order."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads") and torch.get_num_threads() != _NUM_THREADS:
        torch.set_num_threads(_NUM_THREADS)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, and lose much on a machine that is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
