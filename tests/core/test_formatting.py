"""Figures are shown to the digits that their intervals support."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabench.analysis.statistics import Interval
from lorabench.core.formatting import alike, cost, figure, figure_and_span, relative_gain, span, with_interval


@pytest.mark.parametrize(
    ("estimate", "half", "shown"),
    [
        (0.9312, 0.044, ("0.93", "0.89 to 0.98")),
        (0.9312, 0.015, ("0.931", "0.916 to 0.946")),
        (0.93121, 0.00021, ("0.9312", "0.9310 to 0.9314")),
        (3.7, 1.2, ("3.7", "2.5 to 4.9")),
        (37.0, 12.0, ("37", "25 to 49")),
        (0.5, 0.0, ("0.5000", "0.5000 to 0.5000")),
    ],
)
def test_digits_follow_from_the_interval(estimate: float, half: float, shown: tuple[str, str]) -> None:
    assert with_interval(Interval(estimate, estimate - half, estimate + half)) == shown


def test_signs_and_what_is_missing() -> None:
    assert figure_and_span(Interval(-0.0123, -0.0151, -0.0095), is_signed=True) == "−0.0123 (−0.0151 to −0.0095)"
    assert figure_and_span(Interval(0.001, -0.03, 0.032), is_signed=True) == "+0.001 (−0.030 to +0.032)"
    assert figure(Interval(-0.001, -0.5, 0.5), is_signed=True) == "0.0", "no sign where nothing is left"
    assert span(Interval(1.0, None, None, note="too few documents")) == "no interval: too few documents"
    assert figure(Interval(1.0)) == "1.0000"
    assert (alike(1.08456, Interval(0.93, 0.886, 0.974)), alike(1.08456, None), alike(None, None)) == (
        "1.08",
        "1.0846",
        "–",
    )
    assert (figure(None), span(None)) == ("–", "–")


def test_a_cost_has_two_digits() -> None:
    assert [cost(value) for value in (0.0, 0.00996, 0.0203, 0.0026, 1.25)] == [
        "0.0001",
        "0.010",
        "0.020",
        "0.0026",
        "1.2",
    ]


def test_a_gain_as_a_share_has_its_digits_too() -> None:
    assert relative_gain(Interval(0.2, 0.199, 0.201), Interval(0.8)) == "−20.0\u00a0%"
    assert relative_gain(Interval(0.2, 0.1, 0.3), Interval(0.8)) == "−20\u00a0%"


@given(st.floats(-5, 5), st.floats(1e-5, 3))
def test_an_interval_without_zero_is_shown_without_zero(estimate: float, half: float) -> None:
    interval = Interval(estimate, estimate - half, estimate + half)
    low, high = (float(end.replace("−", "-")) for end in span(interval, is_signed=True).split(" to "))
    if interval.excludes_zero and min(abs(estimate - half), abs(estimate + half)) > 1e-6:
        assert low > 0 or high < 0
    shown = float(figure(interval).replace("−", "-"))
    assert abs(shown - estimate) <= max(half / 3.5, 0.0001) / 2 + 1e-9
