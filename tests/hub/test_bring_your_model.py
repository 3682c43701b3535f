"""The experiments of docs/bring_your_model.md are planned as they stand there, over the local hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.hub.conftest import Worker
from tests.hub.server import LocalHub

PAGE = Path(__file__).parents[2] / "docs" / "bring_your_model.md"


def test_every_block_is_planned(
    worker: Worker, hub_with_models: LocalHub, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_model("smollm2"), tmp_path / "our-model")
    planned = []
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        if block.startswith("# lorabench.yaml"):
            (tmp_path / "lorabench.yaml").write_text(block, encoding="utf-8")
            continue
        (tmp_path / "experiment.yaml").write_text(block, encoding="utf-8")
        planned.append(worker.ok("plan_file", path=str(tmp_path / "experiment.yaml")))
    hub, (folder,), own = planned
    assert hub == ["HuggingFaceTB/SmolLM2-135M", "openai-community/gpt2@main"]
    assert re.fullmatch(r"our-model-[0-9a-f]{8}", folder)
    assert own == ["ours"]
