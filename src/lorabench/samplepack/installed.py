"""Reads text that is on the machine already: the standard library's files, and docstrings of installed packages.

Files are read and parsed, never imported.
"""

from __future__ import annotations

import ast
import inspect
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from lorabench.core.errors import DataError

MIN_DOCSTRING_CHARACTERS = 300
DESCRIPTION_CHARACTERS = (60, 1_000)
"""The shortest and the longest description of a function that is taken."""
MIN_FILE_CHARACTERS = 100
NOT_LIBRARY = {
    "site-packages", "dist-packages", "test", "tests", "idle_test", "idlelib", "turtledemo", "ensurepip", "lib2to3",
    "pydoc_data", "__pycache__",
}  # fmt: skip

_SECTION = re.compile(
    r"^(?:[A-Z][A-Za-z ]+\n[-=]{3,}|(?:Args|Arguments|Returns|Example|Examples):|\.\. |>>> |:param )", re.MULTILINE
)
"""Where a docstring's description ends."""
_LONG_STRING = re.compile(rf'"""(?:(?!""").){{{MIN_DOCSTRING_CHARACTERS}}}', re.DOTALL)
"""A file without such a string holds no docstring of that length, and need not be parsed."""


def read_standard_library() -> Iterator[str]:
    """The running interpreter's own .py files, without its tests and bundled programs, sorted by path."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if NOT_LIBRARY.isdisjoint(path.relative_to(root).parts[:-1]) and not path.name.startswith("_sysconfigdata"):
            source = _read(path)
            if source is not None and len(source) >= MIN_FILE_CHARACTERS:
                yield source


def read_docstrings(packages: Sequence[str]) -> Iterator[str]:
    """Docstrings of at least `MIN_DOCSTRING_CHARACTERS`, with their indentation taken away, in the files' order."""
    for source in _documented_sources(packages):
        for node in _definitions(source):
            docstring = ast.get_docstring(node, clean=False)
            if docstring and len(docstring) >= MIN_DOCSTRING_CHARACTERS:
                yield inspect.cleandoc(docstring)


def read_signatures(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Of each documented public function its signature, and what its docstring says before its first section."""
    for source in _documented_sources(packages):
        for node in _definitions(source):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                description = _SECTION.split(ast.get_docstring(node) or "", maxsplit=1)[0].strip()
                if DESCRIPTION_CHARACTERS[0] <= len(description) <= DESCRIPTION_CHARACTERS[1]:
                    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
                    yield f"def {node.name}({ast.unparse(node.args)}){returns}:", description


def _documented_sources(packages: Sequence[str]) -> Iterator[str]:
    """Files that hold a docstring of some length, in their order."""
    for package in packages:
        root = _package_folder(package)
        for path in sorted(root.rglob("*.py")):
            if all(_is_documented(folder) for folder in path.relative_to(root).parts[:-1]):
                source = _read(path)
                if source is not None and _LONG_STRING.search(source):
                    yield source


def _is_documented(folder: str) -> bool:
    """Whether a subpackage is meant for users: no tests, not private (but NumPy documents itself in its _core)."""
    return (not folder.startswith("_") or folder == "_core") and folder not in {"test", "tests", "testing"}


def _definitions(source: str) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The module, its classes and functions, in their order."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        for block in ("finalbody", "orelse", "handlers", "body"):
            waiting += reversed(_statements(node, block))


def _statements(node: ast.AST, block: str) -> list[ast.AST]:
    """The statements in a block of a compound statement; definitions are nowhere else, so nothing else is visited."""
    statements = getattr(node, block, None)
    return statements if isinstance(statements, list) else []


def _package_folder(package: str) -> Path:
    try:
        located = metadata.distribution(package).locate_file(package)
    except metadata.PackageNotFoundError:
        raise DataError(f"the package {package} is not installed; run scripts/setup.sh") from None
    return Path(str(located))


def _read(path: Path) -> str | None:
    """A source file's text in the encoding that it declares; None where it has none that is known."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
