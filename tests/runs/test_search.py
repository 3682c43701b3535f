"""Searches over rungs: what is trained, what is stopped and why; the finished runs are those that nobody searched."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import lorabench
from lorabench.core.storage import sha256_file
from lorabench.experiment.identity import configuration_of
from lorabench.experiment.search import RUNGS, SearchSettings
from lorabench.methods.settings import AdapterSettings
from lorabench.records.documents import DocumentResults
from lorabench.records.schema import Rung, RunRecord, Scores, Status
from lorabench.records.store import RecordStore, load_records
from lorabench.runs.decision import Decision
from lorabench.runs.group import write_table
from lorabench.runs.searching import AtRung, Entrant, Situation
from lorabench.runs.strategies.racing import leave_when_beaten
from lorabench.runs.view import RunView
from tests.experiment.test_identity import make_spec
from tests.runs.conftest import ExperimentWriter
from tests.runs.test_survival import finish, results, start

ADAPTER = {"rank": [1, 2, 4], "dropout": 0.1}
TRAINING = {
    "learning_rate": [0.0001, 0.01, 0.03],
    "batch_size": 2,
    "context_length": 32,
    "train_bytes": 8000,
    "precision": "fp32",
}
SEARCH = {"strategy": "halving", "rungs": ["1/9", "1/3"], "eta": 3, "keep": 1, "seeds_at_the_end": 2}


def write(experiment: ExperimentWriter, **changes: Any) -> Path:
    sections = {"adapter": ADAPTER, "training": TRAINING, "search": SEARCH}
    evaluation = {"validation_bytes": 1200, "test_bytes": 1200, "samples": 0}
    return experiment(**{**sections, "evaluation": evaluation, **changes})


def by_status(out: Path) -> dict[str, list[RunRecord]]:
    found: dict[str, list[RunRecord]] = {}
    for record in load_records(out):
        found.setdefault(record.status.value, []).append(record)
    return found


def decisions(out: Path) -> dict[str, tuple[Any, ...]]:
    """All that a search has found, which must not depend on how often it was disturbed or by how many it is done."""
    store = RecordStore(out)
    return {
        record.run_id: (
            record.status,
            record.status_reason,
            record.validation,
            record.rungs,
            record.evaluations,
            sha256_file(store.run_dir(record.run_id) / "adapter" / "adapter_model.safetensors"),
        )
        for record in load_records(out)
    }


class Decisions(RunView):
    """Keeps what a search decides."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def decided(self, decision: Decision) -> None:
        self.decisions.append(decision)


def test_halving_trains_few_to_the_end_and_says_why(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path, out, shown = write(experiment, search={**SEARCH, "eta": 2, "keep": 2}), tmp_path / "out", Decisions()
    outcome = lorabench.run(path, out, trackers=["none"], view=shown)
    assert outcome.exit_code == 0
    found = by_status(out)
    assert (len(found["completed"]), len(found["stopped_early"])) == (5, 6)
    assert outcome.num_runs == 11
    reached = sorted(len(record.rungs) for record in found["stopped_early"])
    assert reached == [1] * 4 + [2] * 2
    finished = [record for record in found["completed"] if record.spec.seed == 0]
    finished.sort(key=lambda record: record.validation.bits_per_byte if record.validation else math.inf)
    assert [len(record.rungs) for record in finished] == [2, 2, 2]
    with_more_seeds = {configuration_of(record.spec) for record in found["completed"] if record.spec.seed == 1}
    assert with_more_seeds == {configuration_of(record.spec) for record in finished[:2]}
    ended = [record.spec for record in finished]
    for record in found["stopped_early"]:
        assert record.status_reason is not None
        assert f"stopped at rung {len(record.rungs)} of 2" in record.status_reason
        assert record.validation == record.rungs[-1].validation
        assert (record.test, record.num_test_scorings) == (None, 0)
        assert RecordStore(out).documents(record, "validation", record.rungs[-1].validation) is not None
        better = [other for other in load_records(out) if len(other.rungs) > len(record.rungs) or other.spec in ended]
        worst = max(other.rungs[len(record.rungs) - 1].validation.bits_per_byte for other in better if other.rungs)
        assert record.validation.bits_per_byte >= worst
    for decision, (number, num_at, num_on) in zip(shown.decisions, [(0, 9, 5), (1, 5, 3)], strict=True):
        assert [row.goes_on for row in decision.rows] == [True] * num_on + [False] * (num_at - num_on)
        figures = [
            item.rungs[number].validation.bits_per_byte for item in load_records(out) if len(item.rungs) > number
        ]
        assert [row.bits_per_byte for row in decision.rows] == sorted(figures)
        for row in decision.rows:
            assert row.interval is not None
            assert row.interval.estimate == pytest.approx(row.bits_per_byte)
    again = lorabench.run(path, out, trackers=["none"])
    assert (again.num_skipped, again.exit_code) == (11, 0)
    assert not outcome.problems


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_what_is_finished_is_the_run_that_nobody_searched(
    experiment: ExperimentWriter, tmp_path: Path, schedule: str
) -> None:
    training = {**TRAINING, "learning_rate": [0.01, 0.03], "schedule": schedule, "warmup_ratio": 0.05}
    search = {**SEARCH, "seeds_at_the_end": 1}
    path = write(experiment, adapter={"rank": 2, "dropout": 0.1}, training=training, search=search)
    lorabench.run(path, tmp_path / "searched", trackers=["none"])
    (winner,) = by_status(tmp_path / "searched")["completed"]
    assert len(winner.rungs) == 2
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values.pop("search")
    values["training"]["learning_rate"] = winner.spec.training.learning_rate
    values["evaluation"]["times"] = 1
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    lorabench.run(path, tmp_path / "alone", trackers=["none"])
    for record in by_status(tmp_path / "searched")["stopped_early"]:
        shutil.rmtree(tmp_path / "searched" / "runs" / record.run_id)
    assert results(tmp_path / "alone") == results(tmp_path / "searched")


@pytest.mark.slow
def test_a_rung_is_what_a_run_of_its_length_scores(experiment: ExperimentWriter, tmp_path: Path) -> None:
    """One epoch of a run of two ends where a rung at its half does: the same text, the schedule at its end."""
    training = {**TRAINING, "learning_rate": [0.01, 0.03], "epochs": 2, "warmup_ratio": 0.0}
    search = {"strategy": "halving", "rungs": [0.5], "keep": 1, "seeds_at_the_end": 1}
    path = write(experiment, adapter={"rank": 2}, training=training, search=search)
    lorabench.run(path, tmp_path / "searched", trackers=["none"])
    searched = load_records(tmp_path / "searched")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values.pop("search")
    values["training"] |= {"epochs": 1, "schedule": "wsd"}
    values["evaluation"]["times"] = 1
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    lorabench.run(path, tmp_path / "alone", trackers=["none"])
    alone = {record.spec.training.learning_rate: record.validation for record in load_records(tmp_path / "alone")}
    assert {record.spec.training.learning_rate: record.rungs[0].validation for record in searched} == alone


def test_racing_stops_only_what_a_survivor_beats_over_documents_and_seeds(tmp_path: Path) -> None:
    """The rule on made figures: a clear loser leaves, a close one and one that cannot be compared stay."""
    store, search = RecordStore(tmp_path), SearchSettings(strategy="racing", rungs=RUNGS)
    random = np.random.default_rng(0)
    difficulty = random.lognormal(0.0, 0.3, 60)
    written = []
    for place, offset in enumerate([0.0, 0.001, 0.3]):
        runs = [f"run{place}-s{seed}" for seed in (0, 1, 2)]
        written.append(
            (runs, [made_rung(store, run, difficulty + offset + random.normal(0, 0.01, 60)) for run in runs])
        )

    def leaving_with(num_seeds: int) -> dict[int, str]:
        situation = Situation(search, tuple(range(num_seeds)), store)
        entrants = []
        for place, (runs, rungs) in enumerate(written):
            documents = situation.documents(runs[:num_seeds], rungs[:num_seeds])
            figure = float(np.mean([rung.validation.bits_per_byte for rung in rungs[:num_seeds]]))
            spec = make_spec(adapter=AdapterSettings(rank=2 + place))
            entrants.append(Entrant(spec, tuple(runs[:num_seeds]), figure, documents))
        return leave_when_beaten(AtRung(search, 1, tuple(entrants)))

    leaving = leaving_with(3)
    assert list(leaving) == [2]
    assert leaving[2].startswith("stopped at rung 2 of 3 (0.111 of its steps): run0-s0 was lower by 0.")
    assert "over 3 seeds" in leaving[2]
    assert leaving_with(1) == {}
    (tmp_path / "runs" / "run2-s1" / written[2][1][1].documents).write_bytes(b"damaged")
    assert leaving_with(3) == {}


def test_of_equals_racing_stops_one_in_at_most_twenty_races() -> None:
    """Over all three rungs; nine equal configurations on 40 documents and two seeds."""
    random, search = np.random.default_rng(1), SearchSettings(strategy="racing", rungs=RUNGS)
    sizes, lost = np.full(40, 100.0), 0
    for _ in range(200):
        is_out = False
        for number in range(3):
            difficulty, entrants = random.lognormal(0.0, 0.3, 40), []
            for place in range(9):
                bits = difficulty + random.normal(0, 0.02, (2, 40))
                nll = 100 * math.log(2.0) * bits
                documents = [DocumentResults("the same", sizes, sizes / 4, sizes / 6, row, None) for row in nll]
                spec = make_spec(adapter=AdapterSettings(rank=1 + place))
                runs = (f"run{place}-s0", f"run{place}-s1")
                entrants.append(Entrant(spec, runs, float(bits.mean()), tuple(documents)))
            is_out |= 0 in leave_when_beaten(AtRung(search, number, tuple(entrants)))
        lost += is_out
    assert lost <= 17  # 5 % of 200 is 10; more than 17 would come up once in a hundred


def made_rung(store: RecordStore, run_id: str, bits: np.ndarray[Any, Any]) -> Rung:
    """A rung of a run with these bits per byte of its documents, all of 100 bytes."""
    table = pd.DataFrame(
        {
            "document_hash": [f"d{index:03}" for index in range(len(bits))],
            "num_bytes": 100,
            "num_tokens": 25,
            "num_words": 16,
            "document_bytes": 100,
            "nll": bits * 100 * math.log(2.0),
        }
    )
    path = store.run_dir(run_id) / "documents" / "rung-00000002.parquet"
    write_table(path, table)
    scores = Scores(
        negative_log_likelihood=float(table["nll"].sum()),
        num_tokens=25 * len(bits),
        num_bytes=100 * len(bits),
        num_words=16 * len(bits),
        num_documents=len(bits),
    )
    return Rung(
        share=1 / 9,
        step=2,
        own_steps=1,
        train_tokens_seen=10,
        validation=scores,
        documents="documents/rung-00000002.parquet",
        documents_sha256=sha256_file(path),
    )


@pytest.mark.slow
def test_a_search_that_is_killed_again_and_again_decides_the_same(experiment: ExperimentWriter, tmp_path: Path) -> None:
    """SIGKILL just before changes of files, in rungs and between them: same decisions, same bits."""
    training = {**TRAINING, "learning_rate": [0.0001, 0.01]}
    path = write(experiment, adapter={"rank": [1, 2], "dropout": 0.1}, training=training)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    lorabench.run(path, whole, trackers=["none"])
    command = [sys.executable, "-m", "tests.runs.killing", str(path), str(killed), "8", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert "killed 8 times" in done.stdout, done.stderr
    assert decisions(killed) == decisions(whole)


@pytest.mark.slow
def test_a_race_that_is_killed_in_its_rungs_decides_the_same(experiment: ExperimentWriter, tmp_path: Path) -> None:
    """What is far behind leaves by documents and seeds; SIGKILL at several moments changes no decision and no bit."""
    path = write(
        experiment,
        adapter={"rank": 2, "dropout": 0.1},
        training={**TRAINING, "learning_rate": [0.00001, 0.03]},
        evaluation={"validation_bytes": 4000, "test_bytes": 1200, "samples": 0},
        search={"strategy": "racing", "rungs": ["1/9", "1/3"], "seeds_at_the_end": 3},
        seeds=[0, 1, 2],
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert lorabench.run(path, whole, trackers=["none"]).exit_code == 0
    stopped = by_status(whole)["stopped_early"]
    assert {record.spec.training.learning_rate for record in stopped} == {0.00001}
    assert all("over 3 seeds" in (record.status_reason or "") for record in stopped)
    command = [sys.executable, "-m", "tests.runs.killing", str(path), str(killed), "6", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert "killed 6 times" in done.stdout, done.stderr
    assert decisions(killed) == decisions(whole)


@pytest.mark.slow
def test_two_processes_share_a_search(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path = write(experiment, training={**TRAINING, "learning_rate": [0.0001, 0.01]})
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    lorabench.run(path, whole, trackers=["none"])
    processes = [start(path, shared) for _ in range(2)]
    outputs = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert decisions(shared) == decisions(whole)
    assert all("paused after" in output for output in outputs)


@pytest.mark.slow
def test_a_larger_search_goes_on_from_what_there_is(experiment: ExperimentWriter, tmp_path: Path) -> None:
    """More configurations and more of them kept: what was stopped early goes on where it was stopped."""
    small = {**SEARCH, "seeds_at_the_end": 1}
    path = write(experiment, adapter={"rank": 2}, search=small)
    lorabench.run(path, tmp_path / "grown", trackers=["none"])
    first = {record.run_id: record for record in load_records(tmp_path / "grown")}
    larger = write(experiment, adapter={"rank": [2, 4]}, search={**small, "keep": 3})
    lorabench.run(larger, tmp_path / "grown", trackers=["none"])
    lorabench.run(larger, tmp_path / "whole", trackers=["none"])
    grown, whole = decisions(tmp_path / "grown"), decisions(tmp_path / "whole")
    for run_id, (status, _, *found) in whole.items():  # the sentence is that of the search that stopped it
        assert grown[run_id][0] == status
        assert list(grown[run_id][2:]) == found
    assert grown.keys() == whole.keys()
    for record in load_records(tmp_path / "grown"):
        if record.run_id in first and record.status is Status.COMPLETED is not first[record.run_id].status:
            assert record.num_resumed > 0
            assert record.attempt == 1


@pytest.mark.slow
def test_a_user_stops_one_and_keeps_another(experiment: ExperimentWriter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = write(experiment, adapter={"rank": 2}, search={**SEARCH, "seeds_at_the_end": 1})
    runs = lorabench.plan(path).runs
    low, middle, high = (run.run_id for run in runs)
    for run_id in (low, high):
        RecordStore(out).run_dir(run_id).mkdir(parents=True)
    command = [sys.executable, "-m", "lorabench"]
    for arguments, code, said in (
        (["keep", low], 0, f"{low} goes on to its end"),
        (["stop", high], 0, f"{high} goes no further than its next rung"),
        (["stop", low[:-1]], 2, f"has no such run. Did you mean {low!r}"),
    ):
        done = subprocess.run([*command, *arguments, "--output-dir", out], capture_output=True, text=True)
        assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr
    lorabench.run(path, out, trackers=["none"])
    found = {record.run_id: record for record in load_records(out)}
    assert found[low].status is Status.COMPLETED
    assert (found[high].status, found[high].status_reason) == (Status.STOPPED_EARLY, "stopped by lorabench stop")
    assert len(found[high].rungs) == 1
    assert found[middle].status is Status.COMPLETED
    done = subprocess.run([*command, "stop", high, "--output-dir", out], capture_output=True, text=True)
    assert (done.returncode, "it is stopped early already" in done.stderr) == (2, True)
