"""Corpora of questions about the functions of installed packages: a signature is asked about, its docstring answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from lorabench.corpora.conversations import Row, question_and_answer
from lorabench.corpora.entry import WholeCorpus
from lorabench.corpora.sources.docstrings import versions
from lorabench.samplepack.installed import read_signatures


class SignaturesCorpus(WholeCorpus):
    """The documented functions of some packages."""

    source: Literal["signatures"]
    packages: Annotated[tuple[str, ...], Field(min_length=1)]

    def expected_format(self) -> str:
        """Conversations."""
        return "chat"

    def expected_revision(self) -> str:
        """The packages with their versions. Raises DataError where one is not installed."""
        return versions(self.name, self.packages)

    def texts(self) -> Iterable[Row]:
        """Every function, once."""
        pairs = dict.fromkeys(read_signatures(self.packages))
        return [question_and_answer(f"What does this Python function do?\n\n{asked}", said) for asked, said in pairs]


SOURCE = SignaturesCorpus
