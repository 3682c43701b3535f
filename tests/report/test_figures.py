"""The figures as files: there, the same every time, and showing foreign text as text."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest

from lorabench.records.store import RecordStore
from lorabench.report.build import build_report
from lorabench.report.figures import _drawing, draw
from lorabench.report.picture import Kind, Matrix, Panel, Picture, Point, Series
from tests.report.synthetic import SyntheticResults

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = ("<script>alert(1)</script>", "$x^2$ \\frac{1}{2} 100 %", "_hidden", "名前 🙂", "a & b")


def figures_of(output_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((output_dir / "results" / "figures").iterdir())}


def texts(svg: bytes) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> SyntheticResults:
    made = SyntheticResults(tmp_path_factory.mktemp("figures"), also_on=("news", "medical"))
    made.grid([HOSTILE[0], HOSTILE[1]], ["news", HOSTILE[3]], [8, 16], [3e-4, 1e-3], [0, 1])
    build_report(RecordStore(made.output_dir))
    return made


@pytest.mark.slow
def test_every_figure_is_there_in_both_forms(results: SyntheticResults) -> None:
    figures = figures_of(results.output_dir)
    for name in ("models", "rank_by_learning_rate", "quality_by_cost", "gain_over_base", "drift", "training_curves"):
        assert ET.fromstring(figures[f"{name}.svg"]).tag == f"{SVG}svg"
        image = figures[f"{name}.png"]
        assert image[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", image[16:24])
        assert width > 500
        assert height > 300
    assert {Path(name).suffix for name in figures} == {".svg", ".png"}


@pytest.mark.slow
def test_foreign_names_stay_text(results: SyntheticResults) -> None:
    shown: list[str] = []
    for name, content in figures_of(results.output_dir).items():
        if name.endswith(".svg"):
            root = ET.fromstring(content)
            assert not [
                element for element in root.iter() if element.tag.endswith(("script", "foreignObject", "image"))
            ]
            shown += texts(content)
    assert any(HOSTILE[0] in text for text in shown)
    assert any(HOSTILE[1] in text for text in shown), "no mathematics, whatever looks like it"
    assert any(HOSTILE[3] in text for text in shown)


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(results: SyntheticResults) -> None:
    before = figures_of(results.output_dir)
    build_report(RecordStore(results.output_dir))
    assert figures_of(results.output_dir) == before


def test_a_figure_that_is_no_longer_true_goes(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    results.grid(ranks=[8])
    folder = tmp_path / "results" / "figures"
    folder.mkdir(parents=True)
    (folder / "drift.png").write_bytes(b"of an earlier build")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    build_report(RecordStore(tmp_path))
    assert not (folder / "drift.png").exists()
    assert (folder / "notes.txt").exists()
    assert (folder / "training_curves.svg").exists()


def test_without_figures_none_is_drawn(tmp_path: Path) -> None:
    SyntheticResults(tmp_path).grid(ranks=[8])
    build_report(RecordStore(tmp_path), figures=False)
    assert not (tmp_path / "results" / "figures").exists()


def panels() -> Sequence[Panel | Matrix]:
    points = tuple(Point(x, x / 2, x / 2 - 0.1 if x > 1 else None, x / 2 + 0.1 if x > 1 else None) for x in (1.0, 2.0))
    series = tuple(Series(name, index, points) for index, name in enumerate(HOSTILE))
    front = Series("Pareto front", -1, points, is_front=True)
    ticks = ((1.0, HOSTILE[0]), (2.0, HOSTILE[1]))
    return (
        *(Panel("panel", "", kind, "x", "y", (*series, front)[: 6 if kind is not Kind.BARS else 5]) for kind in Kind),
        Panel("names", "", Kind.ROWS, "x", "", series, ticks=ticks),
        Panel("rates", "", Kind.LINES, "x", "y", series, is_log_x=True, ticks=ticks),
        Matrix(
            "matrix", "", "x", "y", HOSTILE[:2], HOSTILE[2:4], ((0.1, None), (-0.2, 0.0)), (("a", ""), ("b", "c")), ()
        ),
    )


def test_every_kind_of_panel_is_drawn_with_its_names() -> None:
    for panel in panels():
        with _drawing():
            figure = draw(Picture("picture", "title", (panel,), (), ()), (panel,))
            figure.canvas.draw()
        labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        if isinstance(panel, Panel) and panel.kind is not Kind.ROWS:
            assert [label.removeprefix("\u200b") for label in labels][:5] == list(HOSTILE)
