"""The local profile: two experiments that share runs, on as much text as the machine can pay for."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorabench.cli import profile
from lorabench.core.device import choose_device
from lorabench.experiment.plan import Plan, make_plan
from lorabench.experiment.schema import load_experiment

FOLDER = Path(__file__).parents[2] / "configs" / "experiments"
FILES = [FOLDER / f"{name}.yaml" for name in profile.EXPERIMENTS["local"]]


def plans(*settings: str) -> list[Plan]:
    return [make_plan(load_experiment(path, list(settings)), choose_device("cpu")) for path in FILES]


def test_what_both_ask_for_is_done_once() -> None:
    one, two = ({run.run_id: run.spec for run in plan.runs} for plan in plans())
    shared = set(one) & set(two)
    assert len(shared) == 4 * 2  # corpora, seeds
    assert {one[run].adapter.rank for run in shared} == {16}
    assert {one[run].model for run in shared} == {"smollm2-135m-instruct"}


def test_the_smallest_budget_is_what_the_files_hold() -> None:
    written = [run.run_id for plan in plans() for run in plan.runs]
    assert written == [run.run_id for plan in plans(*profile.BUDGETS["small"]) for run in plan.runs]


@pytest.mark.parametrize(("slowdown", "expected"), [(1e-3, "large"), (1e6, "small")])
def test_the_budget_fits_the_machine_and_stays_chosen(
    slowdown: float, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "cache_root", lambda: tmp_path)
    limits = {key: limit / slowdown for key, limit in profile.LIMIT_SECONDS.items()}
    monkeypatch.setattr(profile, "LIMIT_SECONDS", limits)
    assert profile.choose_budget(FILES)[0] == expected
    monkeypatch.setattr(profile, "LIMIT_SECONDS", {True: 1e-9, False: 1e-9})
    assert profile.choose_budget(FILES)[0] == expected


def test_it_prints_experiments_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profile, "cache_root", lambda: tmp_path)
    profile.main(FOLDER, "local")
    printed = capsys.readouterr()
    lines = printed.out.split()
    assert lines[:2] == ["local", "local_models"]
    assert tuple(lines[2:]) in profile.BUDGETS.values()
    assert "Budget:" in printed.err
    profile.main(FOLDER, "smoke")
    assert capsys.readouterr().out.split() == ["smoke"]
