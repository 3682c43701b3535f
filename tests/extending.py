"""The examples of docs/extending.md, installed as a package of one's own would be."""

from __future__ import annotations

import os
import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"


def example(heading: str, language: str = "python") -> str:
    """The first block of a language under a heading of the page."""
    part = re.split(rf"(?m)^## {re.escape(heading)}$", PAGE.read_text(encoding="utf-8"))[1]
    found = re.search(rf"(?ms)^```{language}\n(.*?)^```$", part.split("\n## ")[0])
    assert found is not None
    return found[1]


def install_plugin(folder: Path, group: str, name: str, code: str, attribute: str) -> dict[str, str]:
    """Put `code` and its entry point into `folder`; returns the environment in which Python finds them."""
    module = f"plugin_{name.replace('-', '_')}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    facts = folder / f"{module}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:{attribute}\n", encoding="utf-8")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(":")}
