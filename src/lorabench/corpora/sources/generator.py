"""A corpus that is written when it is read: stories out of a grammar."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from lorabench.corpora.entry import WholeCorpus
from lorabench.samplepack.stories import GENERATOR_VERSION, write_stories


class GeneratedCorpus(WholeCorpus):
    """The stories, the same on every machine."""

    source: Literal["generator"]

    def expected_format(self) -> str:
        """Plain text."""
        return "text"

    def expected_revision(self) -> str:
        """The generator's version."""
        return f"generator-{GENERATOR_VERSION}"

    def texts(self) -> Iterable[str]:
        """Every story."""
        return write_stories()


SOURCE = GeneratedCorpus
