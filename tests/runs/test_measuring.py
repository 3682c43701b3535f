"""Finished adapters are measured on what is asked for later: nothing is trained again, no record loses anything."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorabench
from lorabench.core.device import choose_device
from lorabench.core.errors import InputError
from lorabench.core.revisions import given_name
from lorabench.experiment.identity import BaseVariant
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import RunSpec, load_experiment
from lorabench.methods.saved import saved_adapter
from lorabench.models.base import load_base
from lorabench.records.schema import RunRecord, Sample, Status
from lorabench.records.store import RecordStore, load_records
from lorabench.runs.group import GroupWork, SharedBase
from lorabench.runs.reproduction import reproduce
from lorabench.runs.task import SharedInputs
from lorabench.scoring.tasks import TaskFigures
from tests.runs.conftest import ExperimentWriter, write_corpus, write_experiment

SCORING = {"validation_bytes": 1200, "test_bytes": 1200, "times": 2, "samples": 1}


@pytest.fixture
def elsewhere(tmp_path: Path) -> list[str]:
    """Two corpora that nothing is trained on."""
    return [str(write_corpus(tmp_path / f"{name}.jsonl", seed=seed)) for name, seed in (("far", 5), ("near", 6))]


def run(path: Path, out: Path) -> Any:
    return lorabench.run(path, out, trackers=["none"])


def trained(out: Path) -> dict[str, bytes]:
    """Everything that training and scoring wrote, but the record."""
    names = ("adapter/*", "metrics.jsonl", "documents/validation.parquet", "documents/test.parquet")
    return {str(path): path.read_bytes() for name in names for path in out.glob(f"runs/*/{name}")}


def without_times(record: RunRecord) -> dict[str, Any]:
    """What two measurements of one adapter must agree in."""
    drift = [item.model_dump(exclude={"measurement": {"measured_at"}}) for item in record.drift]
    return {"drift": drift, "samples": [sample.model_dump() for sample in record.samples]}


def scored_on(record: RunRecord) -> list[str]:
    return [given_name(drift.dataset) for drift in record.drift]


ADAPTERS: dict[str, tuple[str, dict[str, object]]] = {
    "lora": ("smollm2", {"rank": [2, 4]}),
    "rslora": ("gpt2", {"method": "rslora", "rank": 4}),
    "pissa": ("pythia", {"method": "pissa", "rank": 4}),
    "dora": ("pythia", {"method": "dora", "rank": 4}),
    "full": ("smollm2", {"method": "full"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ADAPTERS)
def test_what_is_measured_later_is_what_the_run_would_have_measured(
    experiment: ExperimentWriter, elsewhere: list[str], tmp_path: Path, case: str
) -> None:
    family, adapter = ADAPTERS[case]
    changes: dict[str, Any] = {"adapter": adapter}
    if adapter.get("method") == "full":
        changes["training"] = {"learning_rate": 1e-3, "context_length": 32, "train_bytes": 3000, "precision": "fp32"}
    at_once, later = tmp_path / "at_once", tmp_path / "later"
    more = {**SCORING, "also_on": elsewhere, "samples": 2}
    assert run(experiment(family, **changes, evaluation=more), at_once).exit_code == 0
    assert run(experiment(family, **changes, evaluation={**SCORING, "samples": 0}), later).exit_code == 0
    before, files = load_records(later), trained(later)
    outcome = run(experiment(family, **changes, evaluation=more), later)
    assert outcome.exit_code == 0
    assert outcome.num_skipped == 0
    assert trained(later) == files
    pairs = list(zip(before, load_records(later), load_records(at_once), strict=True))
    assert pairs
    for old, new, expected in pairs:
        assert without_times(new) == without_times(expected)
        assert scored_on(new) == ["far", "near"]
        assert len(new.samples) == 2
        assert RecordStore(later).damaged_files(new) == []
        changed = {"drift", "samples", "sampling", "files", "references"}
        assert new.model_dump(exclude=changed) == old.model_dump(exclude=changed)
        assert (new.attempt, new.num_test_scorings) == (1, 1)
    again = {path: path.read_bytes() for path in later.glob("runs/*/record.json")}
    assert run(experiment(family, **changes, evaluation=more), later).num_skipped == len(pairs)
    assert {path: path.read_bytes() for path in again} == again


@pytest.mark.slow
def test_measurements_stay_whatever_the_file_says_later(
    experiment: ExperimentWriter, elsewhere: list[str], tmp_path: Path
) -> None:
    out, adapter = tmp_path / "out", {"rank": 2}
    run(experiment(adapter=adapter, evaluation={**SCORING, "also_on": elsewhere[:1]}), out)
    run(experiment(adapter=adapter, evaluation={**SCORING, "also_on": elsewhere[1:], "samples": 0}), out)
    (record,) = load_records(out)
    assert scored_on(record) == ["far", "near"]
    assert len(record.samples) == 1
    named = {given_name(key) for key in record.references if key.startswith("also_on:")}
    assert named == {"also_on:far", "also_on:near"}
    for drift in record.drift:
        assert drift.measurement is not None
        assert (drift.measurement.context_length, drift.measurement.precision) == (32, "fp32")
        assert drift.measurement.code_sha256 == record.environment.code_sha256
        assert drift.documents in record.files
    content = (out / "runs" / record.run_id / "record.json").read_bytes()
    assert run(experiment(adapter=adapter), out).num_skipped == 1
    assert (out / "runs" / record.run_id / "record.json").read_bytes() == content


@pytest.mark.slow
def test_a_corpus_of_another_revision_is_measured_in_place_of_the_earlier_one(
    experiment: ExperimentWriter, elsewhere: list[str], tmp_path: Path
) -> None:
    """As when the catalogue pins another revision; an edited file has another name, and is another corpus."""
    out, path = tmp_path / "out", experiment(adapter={"rank": 2}, evaluation={**SCORING, "also_on": elsewhere[:1]})
    run(path, out)
    store, (before,), files = RecordStore(out), load_records(out), trained(out)
    store.write(before.model_copy(update={"drift": (before.drift[0].model_copy(update={"revision": "earlier"}),)}))
    run(path, out)
    (after,) = load_records(out)
    assert trained(out) == files
    assert after.drift[0].adapted == before.drift[0].adapted
    assert (len(after.drift), after.drift[0].revision) == (1, before.drift[0].revision)
    assert after.drift[0].documents != before.drift[0].documents
    assert store.damaged_files(after) == []
    kept = {path.name for path in (out / "runs" / after.run_id / "documents").iterdir()}
    assert kept == {"validation.parquet", "test.parquet", Path(str(after.drift[0].documents)).name}
    write_corpus(Path(elsewhere[0]), seed=9)
    run(path, out)
    (edited,) = load_records(out)
    assert scored_on(edited) == ["far", "far"]
    assert edited.drift[0] == after.drift[0]
    assert edited.drift[1].adapted != after.drift[0].adapted
    summary = (out / "results" / "results_summary.md").read_text(encoding="utf-8")
    assert "Drift on other corpora" in summary


def test_a_failed_measurement_takes_nothing_from_a_finished_run(
    experiment: ExperimentWriter, elsewhere: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, path = tmp_path / "out", experiment(adapter={"rank": 2}, evaluation={**SCORING, "also_on": elsewhere})
    score = GroupWork.score

    def fails(work: GroupWork, name: str, split: str, *arguments: Any, **options: Any) -> Any:
        if given_name(name) == "near":
            raise MemoryError
        return score(work, name, split, *arguments, **options)

    for _ in range(2):  # within the run, and afterwards
        with monkeypatch.context() as patch:
            patch.setattr(GroupWork, "score", fails)
            outcome = run(path, out)
        assert (outcome.exit_code, outcome.num_unmeasured) == (1, 1)
        (record,) = load_records(out)
        assert record.status is Status.COMPLETED
        assert scored_on(record) == ["far"]
        (note,) = [note for note in record.notes if "near" in note]
        assert re.fullmatch("also on near-[0-9a-f]{8}: not measured: memory ran out: MemoryError", note)
    files = trained(out)
    assert run(path, out).exit_code == 0
    (record,) = load_records(out)
    assert scored_on(record) == ["far", "near"]
    assert not [note for note in record.notes if "not measured" in note]
    assert trained(out) == files


def test_a_damaged_adapter_is_trained_again_not_measured(
    experiment: ExperimentWriter, elsewhere: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(experiment(adapter={"rank": 2}), out)
    (weights,) = out.glob("runs/*/adapter/adapter_model.safetensors")
    tensors = load_file(weights)
    save_file({name: tensor + 1.0 for name, tensor in tensors.items()}, weights)
    run(experiment(adapter={"rank": 2}, evaluation={**SCORING, "also_on": elsewhere}), out)
    (record,) = load_records(out)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(weights).items())
    assert len(record.drift) == 2


@pytest.mark.slow
def test_the_plan_says_what_is_left(
    experiment: ExperimentWriter, elsewhere: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "lorabench", "plan", "--output-dir", str(out)]

    def plan(path: Path, *options: str) -> str:
        return subprocess.run([*command, str(path), *options], capture_output=True, text=True, check=True).stdout

    path = experiment()
    assert str(out) not in plan(path)
    run(path, out)
    assert "2 runs finished, 0 runs to do" in plan(path)
    path = experiment(adapter={"rank": [2, 4, 8]}, evaluation={**SCORING, "also_on": elsewhere[:1]})
    assert re.search(
        r"2 runs finished and to be measured \(also on far-[0-9a-f]{8}\), not trained again, 1 run to do", plan(path)
    )
    remaining = json.loads(plan(path, "--json"))["remaining"]
    assert (remaining["num_finished"], remaining["num_to_measure"], remaining["num_to_do"]) == (0, 2, 1)
    assert set(remaining["to_measure"]) == {record.run_id for record in load_records(out)}
    assert 0 < remaining["estimated_seconds"] < 60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_during_a_later_measurement_leave_the_record_whole(
    finished: RunRecord, corpus: Path, tiny_model: Callable[[str], Path], elsewhere: list[str], tmp_path: Path
) -> None:
    """SIGKILL just before each change of a file, one after the other, until one comes after the new record."""
    out, pristine = tmp_path / "out", tmp_path / "pristine"
    shutil.copytree(out, pristine)
    evaluation = {**SCORING, "also_on": elsewhere, "samples": 2}
    path = write_experiment(
        tmp_path / "more.yaml", tiny_model("smollm2"), corpus, adapter={"rank": 2}, evaluation=evaluation
    )
    run(path, out)
    shutil.copytree(out / "base_scores", pristine / "base_scores", dirs_exist_ok=True)  # only once, to save time
    code = f"""
import shutil
from pathlib import Path
from tests.runs.killing import attempt, be_ready_to_fork
from lorabench.records.store import RecordStore
be_ready_to_fork()
out, store, seen = Path({str(out)!r}), RecordStore(Path({str(out)!r})), []
for change in range(2, 122, 5):
    shutil.rmtree(out)
    shutil.copytree({str(pristine)!r}, out)
    assert attempt(Path({str(path)!r}), out, change=change)
    record = store.read({finished.run_id!r})
    assert record is not None and store.damaged_files(record) == [], change
    assert record.attempt == 1 and record.status == "completed", change
    seen.append(len(record.drift))
    if record.drift:
        break
    if len(seen) == 3:
        assert not attempt(Path({str(path)!r}), out)
        record = store.read({finished.run_id!r})
        assert len(record.drift) == 2 and len(record.samples) == 2 and record.attempt == 1
        assert store.damaged_files(record) == []
print(len(seen), seen[-1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    num_kills, drifts = map(int, done.stdout.split()[-2:])
    assert num_kills >= 4
    assert drifts == 2


@pytest.mark.parametrize("case", ADAPTERS)
def test_a_saved_adapter_leaves_the_base_as_it_was(
    experiment: ExperimentWriter, tiny_model: Callable[[str], Path], tmp_path: Path, case: str
) -> None:
    family, adapter = ADAPTERS[case]
    run(experiment(family, adapter={**adapter, "rank": 2}), tmp_path / "out")
    (folder,) = tmp_path.glob("out/runs/*/adapter")
    base = load_base(tiny_model(family), precision="bf16", device="cpu")
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    modules, path = [name for name, _ in base.model.named_modules()], base.execution
    with saved_adapter(base, folder):
        assert {name: tensor for name, tensor in base.model.state_dict().items() if name not in before} or (
            adapter.get("method") == "full"
        )
    after = base.model.state_dict()
    assert list(after) == list(before)
    assert all(
        tensor.dtype == before[name].dtype and torch.equal(tensor, before[name]) for name, tensor in after.items()
    )
    assert [name for name, _ in base.model.named_modules()] == modules
    assert base.execution == path
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def as_version_1(store: RecordStore, record: RunRecord, **changes: Any) -> str:
    """Put a record and its folder into the form of schema 1, under an id of that time."""
    old = f"{record.run_id.rpartition('_')[0]}_0123456789"
    values = json.loads((store.run_dir(record.run_id) / "record.json").read_bytes())
    del values["record_sha256"], values["sampling"]
    values |= {"schema_version": 1, "run_id": old}
    values["spec"]["evaluation"] |= {"also_on": [], "samples": len(record.samples)}
    values["spec"]["also_on_revisions"] = []
    for kind in ("model", "dataset"):  # was not named by its content
        values["spec"][kind] = values[kind]["name"] = given_name(values["spec"][kind])
    for key, change in changes.items():
        values[key] |= change
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    values["record_sha256"] = hashlib.sha256(text.encode("ascii")).hexdigest()
    store.run_dir(record.run_id).rename(store.run_dir(old))
    (store.run_dir(old) / "record.json").write_text(json.dumps(values), encoding="utf-8")
    return old


@pytest.mark.slow
def test_runs_recorded_under_earlier_ids_are_finished_runs(
    finished: RunRecord,
    corpus: Path,
    tiny_model: Callable[[str], Path],
    elsewhere: list[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    files = {Path(path).name: content for path, content in trained(out).items()}
    old = as_version_1(RecordStore(out), finished)
    evaluation = {**SCORING, "also_on": elsewhere[:1]}
    file = tmp_path / "experiment.yaml"
    path = write_experiment(file, tiny_model("smollm2"), corpus, adapter={"rank": 2}, evaluation=evaluation)
    assert run(path, out).exit_code == 0
    (record,) = load_records(out)
    assert record.run_id == old
    assert len(record.drift) == 1
    assert {Path(path).name: content for path, content in trained(out).items()} == files
    assert reproduce(old, out).identical


def test_a_run_that_trained_something_else_than_is_planned_today_is_another_run(
    finished: RunRecord, corpus: Path, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Such as attention layers of GPT-2 that were found again by their last name."""
    out = tmp_path / "out"
    old = as_version_1(RecordStore(out), finished, adapter={"trainable_parameters": 1})
    path = write_experiment(tmp_path / "experiment.yaml", tiny_model("smollm2"), corpus, adapter={"rank": 2})
    outcome = run(path, out)
    assert outcome.num_skipped == 0
    assert sorted(record.run_id for record in load_records(out)) == sorted([old, finished.run_id])


def test_quantisation_is_part_of_every_key_of_a_base(experiment: ExperimentWriter, tmp_path: Path) -> None:
    (group,) = make_plan(load_experiment(experiment(adapter={"rank": 2})), choose_device("cpu")).groups
    spec = group.runs[0].spec
    shared = SharedBase.load(group.model.reference, BaseVariant.of(spec), choose_device("cpu"), lambda *_: None)
    with pytest.raises(InputError, match="there is no quantisation 'nf3'; accepted: none, nf4, nf4-double, int8"):
        SharedBase.load(
            group.model.reference,
            BaseVariant.of(spec.model_copy(update={"quantization": "nf3"})),
            choose_device("cpu"),
            print,
        )
    work = GroupWork(shared, SharedInputs.of(group, "text"), tmp_path / "scores", lambda *_: None)
    work.base_scores(spec.dataset, "validation", spec)
    work.base_scores(spec.dataset, "validation", spec)
    assert len(list((tmp_path / "scores").glob("*.parquet"))) == 1
    work.shared = replace(shared, variant=replace(shared.variant, quantization="nf4"))
    work.base_scores(spec.dataset, "validation", spec)
    assert len(list((tmp_path / "scores").glob("*.parquet"))) == 2


def test_kept_scores_are_those_of_their_key_and_of_this_code(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (group,) = make_plan(load_experiment(experiment(adapter={"rank": 2})), choose_device("cpu")).groups
    spec = group.runs[0].spec
    narrow = spec.model_copy(update={"training": spec.training.model_copy(update={"context_length": 8})})
    shared = SharedBase.load(group.model.reference, BaseVariant.of(spec), choose_device("cpu"), lambda *_: None)
    folder = tmp_path / "scores"

    def score(how: RunSpec) -> float:
        work = GroupWork(shared, SharedInputs.of(group, "text"), folder, lambda *_: None)
        return float(work.base_scores(how.dataset, "validation", how).nll.sum())

    wide = score(spec)
    (kept,) = folder.glob("*.parquet")
    right = score(narrow)
    assert right != wide
    (other,) = set(folder.glob("*.parquet")) - {kept}
    key, digest = other.stem.split("-")[0], kept.stem.split("-")[1]
    other.unlink()
    kept.rename(folder / f"{key}-{digest}.parquet")
    assert score(narrow) == right
    assert "it does not match its hash" in caplog.text
    before = set(folder.glob("*.parquet"))
    monkeypatch.setattr("lorabench.runs.group.running_code_sha256", lambda: "another")
    assert score(narrow) == right
    assert len(set(folder.glob("*.parquet")) - before) == 1


def test_full_with_several_ranks_is_planned_once(experiment: ExperimentWriter) -> None:
    plan = lorabench.plan(experiment(adapter={"method": ["lora", "full"], "rank": [2, 4], "alpha": ["2r", 8]}))
    assert [(run.spec.adapter.method, run.spec.adapter.rank, run.spec.adapter.alpha_value) for run in plan.runs] == [
        ("lora", 2, 4.0),
        ("lora", 4, 8.0),
        ("full", 2, 4.0),
        ("lora", 2, 8.0),
    ]
    assert any("4 of the 8 combinations ask for the same run as another" in warning for warning in plan.warnings)


def test_what_the_base_writes_is_made_once_for_all_workers(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = make_plan(load_experiment(experiment(adapter={"rank": 2})), choose_device("cpu")).groups
    spec = group.runs[0].spec
    shared = SharedBase.load(group.model.reference, BaseVariant.of(spec), choose_device("cpu"), lambda *_: None)
    num_examples, done = 3, []
    figures = TaskFigures(num_examples, 0, {"acc": 0.1 + 0.2}, {}, {"acc": True}, [{"doc_id": 0, "acc": 1.0}])

    def do_tasks(work: GroupWork, *_: object) -> dict[str, TaskFigures]:
        done.append("tasks")
        return {"quiz": figures}

    write = GroupWork.samples

    def samples(work: GroupWork, *asked: Any) -> list[Sample]:
        done.append("samples")
        return write(work, *asked)

    monkeypatch.setattr(GroupWork, "tasks", do_tasks)
    monkeypatch.setattr(GroupWork, "samples", samples)
    workers = [GroupWork(shared, SharedInputs.of(group, "text"), tmp_path, lambda *_: None) for _ in range(2)]
    one, other = (worker.base_samples(spec, 1) for worker in workers)
    assert one == other == write(workers[0], spec, 1)
    assert all(worker.base_tasks("quiz", "1", num_examples) == {"quiz": figures} for worker in workers)
    assert done == ["samples", "tasks"]
    workers[0].base_samples(spec.model_copy(update={"seed": 7}), 1)
    workers[1].base_tasks("quiz", "2", num_examples)
    assert done == ["samples", "tasks", "samples", "tasks"]
