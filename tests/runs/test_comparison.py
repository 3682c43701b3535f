"""Two runs, adapters or models on one text: from records, or scored now; the same figures either way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import lorabench
from lorabench.cli.main import app
from lorabench.cli.sides import resolve_side
from lorabench.core.errors import InputError
from lorabench.records.schema import RunRecord
from lorabench.records.store import load_records
from lorabench.runs.comparison import compare_recorded
from tests.report.synthetic import SyntheticResults
from tests.runs.conftest import ExperimentWriter, write_corpus, write_experiment

runner = CliRunner()


TRAINING = {"learning_rate": 0.02, "batch_size": 4, "context_length": 32, "train_bytes": 6000, "precision": "fp32"}


@pytest.fixture(scope="module")
def outputs(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path], corpus: Path, shared_cache: Path
) -> Path:
    """A folder with two runs, of ranks 1 and 8."""
    folder = tmp_path_factory.mktemp("compared")
    changes = {"adapter": {"rank": [1, 8]}, "training": {**TRAINING, "epochs": 4}}
    path = write_experiment(folder / "experiment.yaml", tiny_model("smollm2"), corpus, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORABENCH_CACHE", str(shared_cache))
        assert lorabench.run(path, folder / "outputs", trackers=["none"]).exit_code == 0
    return folder / "outputs"


@pytest.fixture
def two_runs(outputs: Path) -> list[RunRecord]:
    return sorted(load_records(outputs), key=lambda record: record.spec.adapter.rank)


def nll(record: RunRecord, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(folder / "runs" / record.run_id / "documents" / "validation.parquet").to_pandas()
    table = table.sort_values("document_hash")
    return table["nll"].to_numpy(), table["num_bytes"].to_numpy()


def test_runs_by_their_records(two_runs: list[RunRecord], outputs: Path) -> None:
    one, two = two_runs
    done = runner.invoke(app, ["compare", one.run_id, two.run_id, "--output-dir", str(outputs), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    (first, num_bytes), (second, _) = nll(one, outputs), nll(two, outputs)
    expected = (first - second).sum() / np.log(2) / num_bytes.sum()
    assert found["difference"]["estimate"] == pytest.approx(expected, rel=1e-9)
    assert found["first_bits_per_byte"] == pytest.approx(first.sum() / np.log(2) / num_bytes.sum())
    assert found["difference"]["low"] < expected < found["difference"]["high"]
    assert found["verdict"] in ("lower", "higher", "no detectable difference")
    same = runner.invoke(app, ["compare", one.run_id, one.run_id, "--output-dir", str(outputs)])
    assert "no detectable difference, on these seeds only" in same.stdout


def test_models_and_adapters_on_one_text_are_scored_now(
    two_runs: list[RunRecord], outputs: Path, tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    text = write_corpus(tmp_path / "other.jsonl", seed=5, num_documents=12)
    adapter = outputs / "runs" / two_runs[1].run_id / "adapter"
    base = str(tiny_model("smollm2"))
    arguments = ["--data", str(text), "--output-dir", str(outputs), "--json"]
    found = json.loads(runner.invoke(app, ["compare", str(adapter), base, *arguments]).stdout)
    scored = [lorabench.evaluate(base, text, adapter=each)["bits_per_byte"] for each in (adapter, None)]
    assert found["first_bits_per_byte"] == pytest.approx(scored[0], rel=1e-9)
    assert found["second_bits_per_byte"] == pytest.approx(scored[1], rel=1e-9)
    assert found["verdict"] == "lower", "the adapter has learned these words"
    digits = two_runs[1].run_id.rpartition("_")[2]
    by_name = json.loads(runner.invoke(app, ["compare", digits, base, *arguments]).stdout)
    assert by_name["difference"] == found["difference"]
    gpt2 = json.loads(runner.invoke(app, ["compare", base, str(tiny_model("gpt2")), *arguments]).stdout)
    assert gpt2["first_bits_per_byte"] != gpt2["second_bits_per_byte"]


def test_what_cannot_be_compared_says_what_to_do(
    two_runs: list[RunRecord],
    outputs: Path,
    tmp_path: Path,
    experiment: ExperimentWriter,
    tiny_model: Callable[[str], Path],
) -> None:
    with pytest.raises(InputError, match=r"it is no run with scores on record; say on which text with --data"):
        compare_recorded(resolve_side(two_runs[0].run_id, outputs), resolve_side(str(tiny_model("gpt2")), outputs))
    other = write_corpus(tmp_path / "other.jsonl", seed=5)
    (record,) = lorabench.run(
        experiment(adapter={"rank": 2}, datasets=[str(other)]), tmp_path / "more", trackers=["none"]
    ).records
    with pytest.raises(InputError, match=r"scored on different documents; say on which text with --data"):
        compare_recorded(resolve_side(two_runs[0].run_id, outputs), resolve_side(record.run_id, tmp_path / "more"))
    missing = runner.invoke(app, ["compare", "no-such-model", str(tiny_model("gpt2")), "--data", str(other)])
    assert "no-such-model" in str(missing.exception)


def test_several_texts_and_adapters_are_a_table(two_runs: list[RunRecord], outputs: Path, tmp_path: Path) -> None:
    texts = [write_corpus(tmp_path / f"{name}.jsonl", seed, 8) for seed, name in enumerate(("one", "two"))]
    folders = [outputs / "runs" / record.run_id / "adapter" for record in two_runs]
    model = two_runs[0].references["model"]
    arguments = ["evaluate", "--model", model]
    arguments += [part for text in texts for part in ("--data", str(text))]
    arguments += [part for folder in folders for part in ("--adapter", str(folder))]
    rows = [json.loads(line) for line in runner.invoke(app, [*arguments, "--json"]).stdout.splitlines()]
    assert [(row["adapter"], row["data"]) for row in rows] == [
        (str(folder), str(text)) for folder in folders for text in texts
    ]
    for row in rows:
        alone = lorabench.evaluate(model, row["data"], adapter=row["adapter"])
        assert alone == row
    shown = runner.invoke(app, arguments).stdout
    assert shown.count("two.jsonl") == 2
    assert two_runs[1].run_id in shown.replace("\n", "")


def test_a_model_is_a_model_where_ids_of_runs_begin_with_its_name(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    (record,) = results.grid(models=["smollm2-135m-instruct"], ranks=[8])
    assert record.run_id.startswith("smollm2-135m-instruct")
    assert resolve_side("smollm2-135m-instruct", tmp_path).record is None
    assert resolve_side("smollm2-135m-instruct_", tmp_path).record == record
