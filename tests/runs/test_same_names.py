"""Files and folders of one name are different corpora and models, in plans, records and reports."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import lorabench
from lorabench.core.errors import ConfigError
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.records.store import RecordStore
from lorabench.runs.reproduction import experiment_of
from tests.runs.conftest import ExperimentWriter, write_corpus

EVALUATION = {"validation_bytes": 1200, "test_bytes": 1200, "times": 1, "samples": 0}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three files of one stem, two of them in folders of one name, with as many documents each."""
    paths = [tmp_path / folder / "train.jsonl" for folder in ("easy", "hard", "other/hard")]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        write_corpus(path, seed=seed)
    return list(map(str, paths))


def ids_by_text(path: Path) -> dict[str, list[str]]:
    """Revision of the corpus -> run ids."""
    found: dict[str, list[str]] = {}
    for run in make_plan(load_experiment(path)).runs:
        found.setdefault(run.spec.dataset_revision, []).append(run.run_id)
    return found


def test_ids_depend_neither_on_the_order_nor_on_what_is_listed_beside(
    experiment: ExperimentWriter, files: list[str]
) -> None:
    together = ids_by_text(experiment(datasets=files))
    assert len(together) == 3
    assert ids_by_text(experiment(datasets=files[::-1])) == together
    for path in files:
        ((revision, ids),) = ids_by_text(experiment(datasets=[path])).items()
        assert together[revision] == ids


def test_what_is_scored_beside_is_told_from_what_is_trained_on(experiment: ExperimentWriter, files: list[str]) -> None:
    for other in (files[1:], files[:0:-1], [*files, "news"]):
        (group,) = make_plan(
            load_experiment(experiment(evaluation=EVALUATION | {"also_on": other}, datasets=files[:1]))
        ).groups
        names = [plan.name for plan in group.also_on]
        assert len(set(names)) == len(names) == len(set(other) - {files[0]})
        assert group.dataset.name not in names


def test_one_text_listed_twice_is_refused(experiment: ExperimentWriter, files: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "train.jsonl"
    copy.parent.mkdir()
    shutil.copy(files[0], copy)
    with pytest.raises(ConfigError, match=f"datasets: .*{copy} are the same"):
        make_plan(load_experiment(experiment(datasets=[files[0], str(copy)])))
    twice = EVALUATION | {"also_on": [files[1], f"{tmp_path}/easy/../hard/train.jsonl"]}
    with pytest.raises(ConfigError, match=r"evaluation\.also_on: .* are the same"):
        make_plan(load_experiment(experiment(evaluation=twice)))


def test_two_model_folders_of_one_name_are_two_models(
    experiment: ExperimentWriter, tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    folders = [tmp_path / place / "our-model" for place in ("one", "two", "copy")]
    for family, folder in zip(("smollm2", "gpt2", "gpt2"), folders, strict=True):
        shutil.copytree(tiny_model(family), folder)
    names = {
        group.model.name for group in make_plan(load_experiment(experiment(models=list(map(str, folders[:2]))))).groups
    }
    assert len(names) == 2
    assert all(name.startswith("our-model-") for name in names)
    with pytest.raises(ConfigError, match=r"models: .* are the same"):
        make_plan(load_experiment(experiment(models=list(map(str, folders[1:])))))


@pytest.mark.slow
def test_records_and_tables_tell_files_of_one_name_apart(
    experiment: ExperimentWriter, files: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = experiment(datasets=files[:1], evaluation=EVALUATION | {"also_on": files[1:]}, adapter={"rank": 2})
    (record,) = lorabench.run(first, out, trackers=["none"]).records
    store = RecordStore(out)
    assert len(record.drift) == len({drift.dataset for drift in record.drift}) == 2
    for drift in record.drift:
        table = pd.read_parquet(store.run_dir(record.run_id) / "documents" / f"also_on-{drift.dataset}.parquet")
        assert table["nll"].sum() == pytest.approx(drift.adapted.negative_log_likelihood)
        assert drift.base != record.base_validation
    lorabench.run(experiment(datasets=files[1:2], evaluation=EVALUATION, adapter={"rank": 2}), out, trackers=["none"])
    write_corpus(Path(files[0]), seed=7)
    lorabench.run(experiment(datasets=files[:1], evaluation=EVALUATION, adapter={"rank": 2}), out, trackers=["none"])
    with (out / "results" / "benchmark_results.csv").open(encoding="utf-8", newline="") as table:
        names = [row["dataset"] for row in csv.DictReader(table)]
    assert len(set(names)) == len(names) == 3
    summary = (out / "results" / "results_summary.md").read_text(encoding="utf-8")
    assert all(name in summary for name in names)


def test_names_that_the_user_gives_stand_for_one_text(experiment: ExperimentWriter, files: list[str]) -> None:
    one, two = ({"name": "letters", "path": path} for path in files[:2])
    (group,) = make_plan(load_experiment(experiment(datasets=[one]))).groups
    assert group.dataset.name == "letters"
    with pytest.raises(ConfigError, match=r"datasets: .* are both called letters"):
        make_plan(load_experiment(experiment(datasets=[one, two])))
    with pytest.raises(ConfigError, match=r"evaluation\.also_on: .* are both called letters"):
        make_plan(load_experiment(experiment(datasets=[one], evaluation=EVALUATION | {"also_on": [two]})))
    path = experiment(datasets=[one], evaluation=EVALUATION | {"also_on": [dict(one), files[1]]})
    (group,) = make_plan(load_experiment(path)).groups
    assert len(group.also_on) == 1


def test_a_corpus_by_its_parts_is_recorded_and_found_again(
    experiment: ExperimentWriter, files: list[str], tmp_path: Path
) -> None:
    entry = {"name": "letters", "path": files[0], "near_duplicates": "keep"}
    path = experiment(datasets=[entry], evaluation=EVALUATION | {"also_on": ["stories"]}, adapter={"rank": 2})
    (record,) = lorabench.run(path, tmp_path / "out", trackers=["none"]).records
    assert record.dataset is not None
    assert (record.dataset.name, record.dataset.near_duplicates) == ("letters", "keep")
    assert json.loads(record.references["dataset"]) == entry
    assert [drift.dataset for drift in record.drift] == ["stories"]
    (again,) = make_plan(experiment_of(record)).runs
    assert (again.run_id, again.spec.dataset_revision) == (record.run_id, record.spec.dataset_revision)
