"""The table of a rung: every configuration with its interval, and who goes on."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from lorabench.analysis.statistics import Interval
from lorabench.cli.views.view import PlainView
from lorabench.records.documents import DocumentResults
from lorabench.runs.decision import Decision, RaceRow, interval_of

ROWS = (
    RaceRow("tiny, rank 8, rate 0.001", 2, 1.1234, Interval(1.1234, 1.1, 1.15, 40, 2), True),
    RaceRow("tiny, rank 16, rate 0.1 [red]", 2, 1.5, None, False),
    RaceRow("tiny, rank 8, rate 9", 2, None, None, False),
)


def test_a_rung_is_shown_without_a_terminal() -> None:
    shown = io.StringIO()
    PlainView(Console(file=shown, width=80)).decided(Decision("news", "rung 1 of 2 (0.333 of its steps)", ROWS))
    title, headings, first, second, failed = shown.getvalue().splitlines()
    assert title.strip() == "news, rung 1 of 2 (0.333 of its steps): 1 of 3 go on"
    assert headings.split() == ["configuration", "seeds", "bits/byte", "95", "%"]
    assert first.split() == [
        "tiny,",
        "rank",
        "8,",
        "rate",
        "0.001",
        "2",
        "1.1234",
        "1.100",
        "to",
        "1.150",
        "goes",
        "on",
    ]
    assert second.split() == ["tiny,", "rank", "16,", "rate", "0.1", "[red]", "2", "1.5000", "–", "leaves"]
    assert failed.split()[-4:] == ["2", "–", "–", "leaves"]


def test_an_interval_needs_the_same_documents_with_every_seed() -> None:
    sizes = np.full(30, 100.0)
    random = np.random.default_rng(0)
    seeds = [DocumentResults("same", sizes, sizes / 4, sizes / 6, random.normal(80, 8, 30), None) for _ in range(2)]
    interval = interval_of(seeds)
    assert interval is not None
    assert interval.estimate == pytest.approx(np.mean([item.nll.sum() for item in seeds]) / 3000 / np.log(2))
    assert interval.low is not None
    assert interval.low < interval.estimate
    other = DocumentResults("other", sizes, sizes / 4, sizes / 6, sizes, None)
    assert interval_of([seeds[0], other]) is None
    assert interval_of([]) is None
