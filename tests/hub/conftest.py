"""One local hub and a few worker processes for the whole session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub import corpora
from tests.hub.server import LocalHub

GOOD_TOKEN = "hf_" + "planted" * 4 + "good"
OTHER_TOKEN = "hf_" + "planted" * 4 + "other"
ROOT = Path(__file__).parents[2]


class Worker:
    """A process that runs the loaders; see tests/hub/worker.py."""

    def __init__(self, hub_url: str, home: Path, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        self.home = home
        self._log = (home / "stderr.txt").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-m", "tests.hub.worker"],
            cwd=ROOT,
            env=kept
            | {"HF_ENDPOINT": hub_url, "HF_HOME": str(home / "hf"), "LORABENCH_CACHE": str(home / "lorabench")}
            | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __call__(self, call: str, *, token: str | None = None, **arguments: Any) -> dict[str, Any]:
        """The worker's answer; its process sees `token` as HF_TOKEN."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"call": call, "arguments": arguments, "environment": {"HF_TOKEN": token}}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the worker died: {self.printed()[-2000:]}"
        answer: dict[str, Any] = json.loads(line)
        assert "crash" not in answer, answer["crash"]
        return answer

    def ok(self, call: str, *, token: str | None = None, **arguments: Any) -> dict[str, Any]:
        """The answer's result, which must not be an error."""
        answer = self(call, token=token, **arguments)
        assert "ok" in answer, answer
        result: dict[str, Any] = answer["ok"]
        return result

    def printed(self) -> str:
        """Everything that the process has written to its terminal."""
        return (self.home / "stderr.txt").read_text(encoding="utf-8")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()
        self._log.close()


@pytest.fixture(scope="session")
def hub() -> Iterator[LocalHub]:
    with LocalHub(tokens={GOOD_TOKEN, OTHER_TOKEN}) as running:
        for repository in corpora.all_corpora():
            running.add(repository)
        yield running


@pytest.fixture(scope="session")
def hub_with_models(hub: LocalHub) -> LocalHub:
    from tests.hub import model_repositories

    for repository in (
        model_repositories.gpt2(),
        model_repositories.pythia(),
        model_repositories.gemma({GOOD_TOKEN}),
        model_repositories.smollm2(),
    ):
        hub.add(repository)
    return hub


@pytest.fixture(scope="session")
def start_worker(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(*, url: str | None = None, home: Path | None = None, **environment: str) -> Worker:
        worker = Worker(url or hub.url, home or tmp_path_factory.mktemp("home"), **environment)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.close()


@pytest.fixture(scope="session")
def worker(start_worker: Callable[..., Worker]) -> Worker:
    """The process that most tests share, with an empty HF_HOME at first."""
    return start_worker()
