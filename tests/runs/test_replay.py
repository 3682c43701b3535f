"""`benchmarks/record_grid.py` and `replay_search.py`: what is packed is what lies on disk, costs and regrets those of
hand calculations."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lorabench.core.storage import sha256_file
from lorabench.methods.settings import AdapterSettings
from lorabench.records.asked import Asked, write_asked
from lorabench.records.schema import Rung, RunRecord, Status
from tests.experiment.test_identity import make_spec
from tests.report.synthetic import SyntheticResults

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WSD = {"schedule": "wsd"}


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def recorded(folder: Path) -> list[RunRecord]:
    """A whole search of two ranks with two seeds over one rung, which trained both to their end."""
    results = SyntheticResults(folder, num_documents=12, steps=9)
    found = [with_rung(results, record) for record in results.grid(ranks=[4, 8], seeds=[0, 1], training=WSD)]
    runs = {record.run_id: "news" for record in found}
    write_asked(folder, Asked(name="grid", started_at="2026-11-29T12:00:00", is_search=True, runs=runs))
    return found


def with_rung(results: SyntheticResults, record: RunRecord) -> RunRecord:
    """The run with a rung at a third of it, where every document scored a tenth worse."""
    documents = results.store.run_dir(record.run_id) / "documents"
    table = pd.read_parquet(documents / "validation.parquet")
    table["nll"] *= 1.1
    table.to_parquet(documents / "rung-00000003.parquet", index=False)
    assert record.validation is not None
    total = float(table["nll"].sum())
    rung = Rung(
        share=1 / 3,
        step=3,
        own_steps=1,
        train_tokens_seen=100,
        validation=record.validation.model_copy(update={"negative_log_likelihood": total}),
        documents="documents/rung-00000003.parquet",
        documents_sha256=sha256_file(documents / "rung-00000003.parquet"),
    )
    files = results.hashes(record.run_id)
    record = record.model_copy(update={"rungs": (rung,), "files": files})
    results.store.write(record)
    return record


def test_what_is_packed_is_what_lies_on_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from record_grid import main as record_main

    records, path = recorded(tmp_path / "out"), tmp_path / "grid.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["record_grid.py", str(tmp_path / "out"), "--to", str(path)])
        record_main()
    said = capsys.readouterr().out
    assert "news: 2 configurations × 2 seeds × 2 stages (rungs and the end) × 12 documents" in said
    table = pd.read_parquet(path)
    assert len(table) == 2 * 2 * 2
    assert {"corpus", "rank", "seed", "share", "step", "own_steps", "spec", "nll", "num_bytes"} <= set(table.columns)
    assert "learning_rate" not in table.columns, "it does not vary"
    for record in records:
        of_run = table[(table["rank"] == record.spec.adapter.rank) & (table["seed"] == record.spec.seed)]
        assert of_run[["share", "step", "own_steps"]].values.tolist() == [[1 / 3, 3, 1], [1.0, 9, 0]]
        for name, (_, row) in zip(("rung-00000003", "validation"), of_run.iterrows(), strict=True):
            written = pd.read_parquet(tmp_path / "out" / "runs" / record.run_id / "documents" / f"{name}.parquet")
            written = written.sort_values("document_hash")
            assert row["nll"].tolist() == written["nll"].astype(np.float32).tolist()
            assert row["num_bytes"].tolist() == written["num_bytes"].tolist()
            figure = written["nll"].sum() / (math.log(2) * written["num_bytes"].sum())
            assert row["bits_per_byte"] == pytest.approx(figure, rel=1e-12)
    assert not any(name in path.read_bytes() for name in (b"document_hash", b"validation.parquet"))


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def remove_record(folder: Path, record: RunRecord) -> None:
    (folder / "runs" / record.run_id / "record.json").unlink()


def change(folder: Path, record: RunRecord, **values: Any) -> None:
    SyntheticResults(folder).store.write(record.model_copy(update=values))


def score_other_documents(folder: Path, record: RunRecord) -> None:
    results, (rung,) = SyntheticResults(folder), record.rungs
    path = results.store.run_dir(record.run_id) / rung.documents
    table = pd.read_parquet(path)
    table.loc[0, "document_hash"] = "f" * 64
    table.to_parquet(path, index=False)
    rung = rung.model_copy(update={"documents_sha256": sha256_file(path)})
    change(folder, record, rungs=(rung,), files=results.hashes(record.run_id))


def drop_from_list(folder: Path, record: RunRecord) -> None:
    """So that a seed is missing though all that was asked for is there."""
    path = folder / "experiments" / "grid.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["runs"][record.run_id]
    path.write_text(json.dumps(values), encoding="utf-8")


def score_otherwise(folder: Path, record: RunRecord) -> None:
    """The same configuration and seed once more, with less test text."""
    spec = record.spec.model_copy(update={"evaluation": record.spec.evaluation.model_copy(update={"test_bytes": 10})})
    results = SyntheticResults(folder, num_documents=12, steps=9)
    again = with_rung(results, results.add(spec))
    path = folder / "experiments" / "grid.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["runs"][again.run_id] = "news"
    path.write_text(json.dumps(values), encoding="utf-8")


DAMAGES: list[tuple[Callable[[Path, RunRecord], None], str]] = [
    (lambda folder, run: damage(folder / "runs" / run.run_id / run.rungs[0].documents), "cannot be used"),
    (
        lambda folder, run: damage(folder / "runs" / run.run_id / "documents" / "validation.parquet"),
        "validation.parquet",
    ),
    (lambda folder, run: change(folder, run, rungs=()), "no rungs"),
    (
        lambda folder, run: change(folder, run, rungs=(run.rungs[0].model_copy(update={"share": 0.5}),)),
        "its rungs are not",
    ),
    (lambda folder, run: change(folder, run, status=Status.STOPPED_EARLY, status_reason="beaten"), "stopped_early"),
    (score_other_documents, "other documents"),
    (score_otherwise, "with other scoring"),
    (drop_from_list, "no such run has seed 1"),
    (remove_record, "record"),
]


@pytest.mark.parametrize(("spoil", "said"), DAMAGES)
def test_a_folder_that_is_not_whole_is_refused(
    spoil: Callable[[Path, RunRecord], None],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from record_grid import main

    run = recorded(tmp_path)[-1]
    spoil(tmp_path, run)
    monkeypatch.setattr(sys, "argv", ["record_grid.py", str(tmp_path), "--to", str(tmp_path / "grid.parquet")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2)
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    assert said in sentence
    assert run.run_id.split("-s1_")[0] in sentence
    assert not (tmp_path / "grid.parquet").exists()


AT_RUNGS = [0.00, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08]
AT_END = [0.02, 0.00, 0.01, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08]
"""Bits per byte above 1: the first leads at both rungs, the second at the end."""


def certain_grid() -> Any:
    """Nine configurations, rungs at 1/9 and 1/3, three seeds; every document and seed says the same."""
    from recorded_grid import Grid

    sizes = np.array([50.0, 100.0, 150.0, 200.0])
    bits = 1.0 + np.array([AT_RUNGS, AT_RUNGS, AT_END])
    nll = math.log(2.0) * bits[:, :, None, None] * np.ones((3, 1)) * sizes
    training = make_spec().training.model_copy(update=WSD)
    specs = tuple(make_spec(adapter=AdapterSettings(rank=1 + place), training=training) for place in range(9))
    return Grid("certain", specs, (1 / 9, 1 / 3), nll, sizes)


# In whole runs: to the first rung, on to the second, and on to the end. A rung's last fifth is not the run's own.
FIRST, SECOND, LAST = 1 / 9, 1 / 3 - 0.8 / 9, 1 - 0.8 / 3


def test_costs_and_regrets_are_those_calculated_by_hand() -> None:
    from replay_search import replay_often

    rows = replay_often(certain_grid(), 4, 0, has_new_seeds=True)
    expected = {
        "full grid, 3 seeds": (27, 0.0),
        "full grid, 1 seed": (9, 0.0),
        "halving from 1/9, 1 seed": (9 * FIRST + 5 * SECOND + 3 * LAST + 2 * 2, 0.0),
        "the same, a fresh schedule for each rung from 1/9": (9 * 1 / 9 + 5 * 1 / 3 + 3 + 2 * 2, 0.0),
        "halving from 1/9, 1 seed, eta 3, keep 1": (9 * FIRST + 3 * SECOND + 1 * LAST + 2, 0.02),
        "halving from 1/9, 3 seeds, eta 3, keep 1": (3 * (9 * FIRST + 3 * SECOND + LAST), 0.02),
        "racing from 1/9, 2 seeds": (2 * (9 * FIRST + SECOND + LAST) + 1, 0.02),
        "racing from 1/9, 3 seeds": (3 * (9 * FIRST + SECOND + LAST), 0.02),
        "halving from 1/3, 1 seed": (9 / 3 + 5 * LAST + 2 * 2, 0.0),
        "racing from 1/3, 3 seeds": (3 * (9 / 3 + LAST), 0.02),
    }
    for name, (runs, regret) in expected.items():
        row, is_best = rows[name], float(regret == 0.0)
        assert row.cost == pytest.approx(runs / 27), name
        assert (row.mean_regret, row.high_regret) == pytest.approx((regret, regret)), name
        assert (row.in_the_set, row.best_kept, row.best_chosen) == (is_best, is_best, is_best), name


def test_the_order_at_a_rung_is_compared_with_that_at_the_end() -> None:
    grid = certain_grid()
    assert grid.agreement == pytest.approx([1 - 6 * (4 + 1 + 1) / (9 * 80)] * 2)
    first = grid.with_first_seeds(2)
    assert first.num_seeds == 2
    assert np.array_equal(first.nll, grid.nll[:, :, :2])
    assert grid.with_first_seeds(7).num_seeds == grid.num_seeds


def test_random_search_is_as_good_as_all_subsets_of_its_size_on_average() -> None:
    from recorded_grid import redraw
    from replay_search import judge, replay, train_whole

    grid, random = certain_grid(), np.random.default_rng(1)
    name = "random search at the cost of halving from 1/9, 1 seed"
    assert replay(grid, random)[name].runs == 8, "8.4 runs pay for eight"
    outcomes = []
    for _ in range(400):
        redrawn, order = redraw(grid, random)
        found = train_whole(redrawn, 8, 1)
        outcomes.append(replace(found, kept=order[list(found.kept)].tolist(), choice=int(order[found.choice])))
    row = judge(grid, outcomes)
    lowest = [min(subset) for subset in itertools.combinations(AT_END, 8)]
    assert row.cost == pytest.approx(8 / 27)
    assert row.mean_regret == pytest.approx(np.mean(lowest), abs=4 * np.std(lowest) / math.sqrt(400))
    assert row.best_kept == row.best_chosen == pytest.approx(8 / 9, abs=0.1)


def test_a_pruner_lets_go_on_what_leads_and_stops_what_does_not() -> None:
    pytest.importorskip("optuna")
    from replay_search import prune

    grid, random = certain_grid(), np.random.default_rng(0)
    first_leads = prune(grid, 0, "asha", random)
    assert (list(first_leads.kept), first_leads.choice) == ([0], 0)
    assert first_leads.runs == pytest.approx(9 * FIRST + SECOND + LAST)
    turned = prune(replace(grid, nll=grid.nll[:, ::-1]), 0, "asha", random)  # each is better than all before
    assert (list(turned.kept), turned.choice) == (list(range(9)), 7)
    assert turned.runs == pytest.approx(9 * (FIRST + SECOND + LAST))
    hyperband = prune(grid, 0, "hyperband", random)
    assert first_leads.runs < hyperband.runs < turned.runs
    assert hyperband.choice == min(hyperband.kept, key=lambda place: AT_END[place])


def test_new_seeds_spread_around_the_mean_as_the_recorded_ones_do() -> None:
    """Of one configuration, and of the difference of two that a seed moves alike."""
    from recorded_grid import redraw

    random, grid = np.random.default_rng(3), certain_grid()
    moved = random.normal(0, 0.3, (1, 1, 3, 1)) + random.normal(0, 0.1, (1, 9, 3, 1))
    grid = replace(grid, nll=grid.nll * (1.0 + 0.01 * moved))
    figures = []
    for _ in range(1500):
        drawn, order = redraw(grid, random, has_new_seeds=True)
        bits = drawn.nll.sum(axis=3) / (math.log(2.0) * drawn.num_bytes.sum())  # [R, K, S]
        figures.append(bits[:, np.argsort(order)])
    each = np.array(figures)
    recorded_bits = grid.nll.sum(axis=3) / (math.log(2.0) * grid.num_bytes.sum())
    assert np.abs(each.mean(axis=(0, 3)) - grid.figures).max() < 2e-4
    pair, recorded_pair = each[:, -1, 0] - each[:, -1, 1], recorded_bits[-1, 0] - recorded_bits[-1, 1]
    own = recorded_bits[-1] - recorded_bits[-1].mean(axis=0)
    expected = 9 / 8 * (own[0].var(ddof=1) + own[1].var(ddof=1))
    assert pair.var() == pytest.approx(expected, rel=0.1)
    assert pair.var() < 0.5 * 2 * each[:, -1, 0].var(), "what moves both alike cancels"
    assert recorded_pair.mean() == pytest.approx(pair.mean(), abs=2e-4)


def test_a_file_that_is_no_grid_is_refused(tmp_path: Path) -> None:
    from recorded_grid import read_grids

    path = tmp_path / "grid.parquet"
    pd.DataFrame({"corpus": ["news"], "nll": [[1.0]]}).to_parquet(path)
    with pytest.raises(ValueError, match="column num_bytes is missing"):
        read_grids(path)


def test_a_recorded_grid_is_read_as_it_was_written(tmp_path: Path) -> None:
    from record_grid import pack
    from recorded_grid import read_grids

    recorded(tmp_path / "out")
    table = pack(tmp_path / "out")
    table.to_parquet(tmp_path / "grid.parquet")
    (grid,) = read_grids(tmp_path / "grid.parquet")
    assert grid.nll.shape == (2, 2, 2, 12)
    assert (grid.shares, grid.specs[0].training.schedule) == ((1 / 3,), "wsd")
    figures = table.groupby(["share", "rank"])["bits_per_byte"].mean().to_numpy().reshape(2, 2)
    assert grid.figures == pytest.approx(figures, abs=1e-6)
    table.iloc[1:].to_parquet(tmp_path / "grid.parquet")
    with pytest.raises(ValueError, match="once with each seed"):
        read_grids(tmp_path / "grid.parquet")
