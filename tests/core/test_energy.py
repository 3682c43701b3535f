"""The processor's counters of energy, and what is told where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorabench.core.energy import ProcessorEnergy


def write(folder: Path, name: str, microjoules: int) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text("1000000000\n")


def test_two_processors_of_which_one_counter_began_anew(tmp_path: Path) -> None:
    write(tmp_path, "intel-rapl:0", 5_000_000)
    write(tmp_path, "intel-rapl:1", 999_000_000)
    write(tmp_path, "intel-rapl:0:0", 1_000_000)  # a part of the first, counted there
    energy = ProcessorEnergy(tmp_path)
    write(tmp_path, "intel-rapl:0", 8_500_000)
    write(tmp_path, "intel-rapl:1", 1_000_000)
    write(tmp_path, "intel-rapl:0:0", 9_000_000)
    assert energy.joules() == pytest.approx(3.5 + 2.0)


def test_nothing_is_told_where_nothing_can_be_read(tmp_path: Path) -> None:
    assert ProcessorEnergy(tmp_path / "none").joules() is None
    energy = ProcessorEnergy(tmp_path)
    write(tmp_path, "intel-rapl:0", 1)
    assert energy.joules() is None
    energy = ProcessorEnergy(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("")
    assert energy.joules() is None
