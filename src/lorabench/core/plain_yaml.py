"""Reads YAML that people wrote, or that somebody made to do harm: plain values only, bounded in size and depth."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lorabench.core.errors import ConfigError

MAX_FILE_BYTES = 64 * 1024


def show_key(key: Any) -> str:
    """A key as it may be printed: short, one line, no control characters."""
    return show_value(key, str)[:80].encode("unicode_escape").decode("ascii")


def show_value(value: Any, write: Callable[[Any], str] = repr) -> str:
    """A value as it may be printed: short, one line."""
    try:
        text = write(value)
    except (ValueError, RecursionError):  # Python refuses to write numbers of thousands of digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "…"


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML without aliases (which can grow without bound), duplicate keys, or numbers read as text."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise ConfigError("aliases (*name) are not accepted in an experiment file")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key in seen:
                raise ConfigError(f"{show_key(key)}: the key is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_PlainLoader.add_implicit_resolver(  # YAML 1.1 reads 1e-4 as text; people mean a number
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d[\d_]*(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path, *, kind: str, missing: str, too_large: str) -> Any:
    """Read a small YAML file safely. `kind` is what the sentences call it.

    Raises ConfigError: `missing` where there is none, with `too_large` at its end where it has too many bytes, and as
    `parse_yaml` does.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: the file is larger than {MAX_FILE_BYTES} bytes; {too_large}")
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(missing) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"{path}: the {kind} cannot be read: {reason}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML safely. Raises ConfigError with one sentence for anything that is not plain YAML."""
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{where}: the file is larger than {MAX_FILE_BYTES} bytes; an experiment is one short page")
    if text.count("[") + text.count("{") > 2000 or _depth(text) > 20:
        raise ConfigError(f"{where}: the file is nested deeper than an experiment can be")
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or "it cannot be read").replace("\n", " ")
        raise ConfigError(f"{where}: not valid YAML{line}: {problem}") from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise ConfigError(f"{where}: a value cannot be read: {str(error)[:120]}") from None


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    indents = [len(line) - len(line.lstrip(" ")) for line in text.splitlines() if line.strip()]
    dashes = [len(re.match(r"^(\s*(?:- ?)*)", line).group(1)) // 2 for line in text.splitlines()]  # type: ignore[union-attr]
    return max(deepest, *(indent // 2 for indent in indents), *dashes, 0)
