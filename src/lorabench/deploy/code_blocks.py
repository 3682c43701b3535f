"""Blocks of code for model cards; names from outside are quoted by whoever gives the lines."""

from __future__ import annotations

from lorabench.deploy.subject import Subject
from lorabench.report.markdown import code_block


def base_name(subject: Subject) -> str:
    """How others find the base: its repository on the hub, else its folder here."""
    published = subject.location.published
    return published.repository if published is not None else str(subject.location.folder)


def python_block(*lines: str) -> str:
    """Lines of Python as they stand."""
    return _named("python", lines)


def shell_block(*lines: str) -> str:
    """Lines for a shell as they stand."""
    return _named("bash", lines)


def _named(language: str, lines: tuple[str, ...]) -> str:
    fence, rest = code_block("\n".join(lines)).split("\n", 1)
    return f"{fence}{language}\n{rest}"
