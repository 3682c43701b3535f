from __future__ import annotations

import pytest

from lorabench.cli.views.clock import Clock


def test_nothing_is_known_before_the_second_step() -> None:
    clock = Clock()
    clock.plan(3)
    clock.start_run("a", 10, 0.0)
    assert clock.remaining_seconds(1.0) is None
    clock.step("a", 1, 10, 5.0)
    assert clock.remaining_seconds(5.0) is None


def test_the_first_run_is_measured_by_its_steps() -> None:
    clock = Clock()
    clock.plan(1)
    clock.start_run("a", 11, 0.0)
    for step in range(1, 7):
        clock.step("a", step, 11, 10.0 + 2.0 * step)
    assert clock.remaining_seconds(22.0) == pytest.approx(5 * 2.0)
    assert clock.remaining_seconds(25.0) == pytest.approx(7.0)


def test_runs_to_come_take_as_long_as_those_before() -> None:
    clock = Clock()
    clock.plan(4)
    for index, now in enumerate((0.0, 60.0)):
        clock.start_run(f"run-{index}", 2, now)
        clock.step(f"run-{index}", 1, 2, now + 10)
        clock.step(f"run-{index}", 2, 2, now + 40)
        clock.finish_run(f"run-{index}", now + 60)
    assert clock.remaining_seconds(120.0) == pytest.approx(2 * 60)
    clock.start_run("run-2", 2, 120.0)
    assert clock.remaining_seconds(130.0) == pytest.approx(50 + 60)


def test_expected_sizes_are_scaled_by_what_was_measured() -> None:
    clock = Clock()
    clock.plan(3, {"a": 10.0, "b": 20.0, "c": 40.0})
    clock.start_run("a", 1, 0.0)
    clock.finish_run("a", 30.0)
    assert clock.remaining_seconds(30.0) == pytest.approx(3 * 60.0)
    clock.start_run("b", 1, 30.0)
    clock.finish_run("b", 90.0)
    clock.start_run("c", 1, 90.0)
    clock.finish_run("c", 210.0)
    assert clock.remaining_seconds(210.0) == 0.0


def test_several_workers_share_what_remains() -> None:
    clock = Clock()
    clock.plan(6, dict.fromkeys("abcdef", 10.0))
    clock.num_workers = 2
    for run_id in "ab":
        clock.start_run(run_id, 10, 0.0)
        clock.finish_run(run_id, 20.0)
    assert clock.remaining_seconds(20.0) == pytest.approx(4 * 20.0 / 2)
    clock.start_run("c", 10, 20.0)
    clock.start_run("d", 10, 20.0)
    assert clock.remaining_seconds(30.0) == pytest.approx((2 * 10.0 + 2 * 20.0) / 2)
    for run_id in "cde":
        clock.finish_run(run_id, 60.0)
    clock.start_run("f", 10, 60.0)
    assert clock.remaining_seconds(60.0) == pytest.approx(30.0, rel=0.2), "one run is not shared by two workers"


def test_a_run_that_is_seen_now_and_then_or_left_alone_is_no_trouble() -> None:
    clock = Clock()
    clock.plan(1)
    clock.start_run("a", 101, 0.0)
    clock.step("a", 1, 101, 1.0)
    clock.step("a", 51, 101, 6.0)
    assert clock.remaining_seconds(6.0) == pytest.approx(5.0)
    clock.pause_run("a")
    clock.step("a", 52, 101, 6.0)
    clock.finish_run("a", 7.0)
    assert clock.remaining_seconds(7.0) == 0.0
