"""What is read beside a record is compared with it first; what is no run in `runs/` is named, and the others go on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorabench.analysis.analyse import analyse
from lorabench.core.errors import DiskError
from lorabench.core.storage import sha256_file
from lorabench.records.documents import parse_documents
from lorabench.records.reading import DamagedFileError
from lorabench.records.schema import RunRecord, Scores, Status
from lorabench.records.store import DamagedRecordError, RecordProblem, RecordStore, check_adapter_of_run
from lorabench.report.build import build_report
from tests.report.synthetic import SyntheticResults

NUM_FLIPS = 2000
SPLITS = ("validation", "test", "also_on-stories")


@pytest.fixture(autouse=True)
def no_test_waits_for_ever() -> Iterator[None]:
    """Reading a pipe would: the alarm ends it with an error."""
    signal.alarm(240)
    yield
    signal.alarm(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four finished runs and a failed one, an adapter beside each finished one: copy it before you spoil it."""
    out = tmp_path_factory.mktemp("made") / "out"
    results = SyntheticResults(out, num_documents=20, also_on=("stories",), steps=12)
    for record in results.grid(ranks=[2, 4, 8, 16]):
        folder = results.store.run_dir(record.run_id) / "adapter"
        folder.mkdir()
        (folder / "adapter_config.json").write_text('{"r": 8}')
        (folder / "adapter_model.safetensors").write_bytes(np.random.default_rng(0).bytes(2000))
        results.store.write(record.model_copy(update={"files": results.hashes(record.run_id)}))
    results.grid(ranks=[32], status=Status.FAILED, status_reason="the disk was full")
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"


def finished_runs(out: Path) -> list[RunRecord]:
    return [record for record in RecordStore(out).read_all()[0] if record.status is Status.COMPLETED]


def expected(record: RunRecord, split: str) -> Scores:
    scores = {"validation": record.validation, "test": record.test, "also_on-stories": record.drift[0].adapted}[split]
    assert scores is not None
    return scores


def everything(store: RecordStore, run_id: str, name: str) -> Any:
    """What the program takes from a file of a run; raises where it refuses the file."""
    record = store.get(run_id)
    if name == "record.json":
        return record
    if name == "metrics.jsonl":
        return store.metrics(record)
    if name.startswith("adapter/"):
        return store.check_adapter(record)
    split = name.removeprefix("documents/").removesuffix(".parquet")
    documents = store.documents(record, split, expected(record, split))
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in vars(documents).items()}


def test_of_thousands_of_flipped_bits_each_is_refused_and_named_or_has_no_effect(out: Path) -> None:
    generator = random.Random(12)
    files = [
        (record.run_id, path.relative_to(out / "runs" / record.run_id).as_posix(), path)
        for record in finished_runs(out)
        for path in sorted((out / "runs" / record.run_id).rglob("*"))
        if path.is_file()
    ]
    assert len(files) == 4 * 7
    whole = {path: everything(RecordStore(out), run_id, name) for run_id, name, path in files}
    refused = harmless = 0
    for _ in range(NUM_FLIPS):
        run_id, name, path = generator.choice(files)
        content = path.read_bytes()
        place = generator.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        told = None
        try:
            assert everything(RecordStore(out), run_id, name) == whole[path]
        except (DamagedFileError, DamagedRecordError) as error:
            told = str(error)
        if told is not None:
            assert told.startswith(f"{path}: ")
            refused += 1
        else:
            assert name == "record.json"  # another way to write the same JSON: 1E-05 for 1e-05
            harmless += 1
        path.write_bytes(content)
    assert refused + harmless == NUM_FLIPS
    assert harmless < NUM_FLIPS / 100


def rewrite(path: Path, column: str, how: Callable[[pd.Series], Any]) -> None:
    table = pd.read_parquet(path)
    table[column] = how(table[column])
    table.to_parquet(path, index=False)


EDITS: dict[str, tuple[str, Callable[[pd.Series], Any]]] = {
    "hashes swapped": ("document_hash", lambda column: column[::-1].to_numpy()),
    "bytes doubled": ("num_bytes", lambda column: column * 2),
    "bytes moved": ("num_bytes", lambda column: np.roll(column, 1)),
    "tokens doubled": ("num_tokens", lambda column: column * 2),
    "words doubled": ("num_words", lambda column: column * 2),
    "nll shuffled": ("nll", lambda column: column[::-1].to_numpy()),
    "nll a little lower": ("nll", lambda column: column * (1 - 1e-9)),
    "base_nll times 1.2": ("base_nll", lambda column: column * 1.2),
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_column_is_refused_and_named_and_the_headline_does_without(out: Path, split: str, edit: str) -> None:
    before = analyse(*loaded(out))
    assert before.problems == ()
    lowest = before.corpora[0].candidates[0]
    (run_id,) = lowest.run_ids
    path = out / "runs" / run_id / "documents" / f"{split}.parquet"
    rewrite(path, *EDITS[edit])
    after = analyse(*loaded(out))
    (problem,) = after.problems
    assert problem.startswith(f"{path}: it is not as it was written")
    assert "lorabench run does the run again; until then it has no interval" in problem
    kept = {item.key: item for item in after.corpora[0].candidates}
    for item in before.corpora[0].candidates:
        found = kept[item.key]
        assert found.bits_per_byte.estimate == pytest.approx(item.bits_per_byte.estimate, rel=1e-12)
        is_spoilt = split == "validation" and item.key == lowest.key
        assert (found.bits_per_byte.low is None) == is_spoilt
        assert found.gain is not None
        assert item.gain is not None
        assert found.gain.estimate == pytest.approx(item.gain.estimate, rel=1e-9)
    if split == "validation":
        assert before.recommendations[0].candidates == (lowest.key,)
        assert after.recommendations[0].candidates == ()
        assert not after.corpora[0].best.is_decided
        assert "Some runs have no per-document results and so no interval" in after.corpora[0].caveats


def loaded(out: Path) -> tuple[list[RunRecord], RecordStore]:
    store = RecordStore(out)
    return store.read_all()[0], store


def hostile_tables(table: pa.Table) -> dict[str, pa.Table]:
    """Tables that are Parquet, and none that a run has written."""

    def put(name: str, values: Any) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, values)

    num_rows = table.num_rows
    nll = table.column("nll").to_pylist()
    return {
        "bytes of strings": put("document_hash", pa.array([b"\xff\xfe"] * num_rows, pa.binary())),
        "text of numbers": put("nll", pa.array([str(value) for value in nll])),
        "numbers of hashes": put("document_hash", pa.array(range(num_rows))),
        "nested": put("nll", pa.array([[value] for value in nll])),
        "records": put("num_bytes", pa.array([{"a": 1}] * num_rows)),
        "dates": put("num_bytes", pa.array([0] * num_rows, pa.timestamp("s"))),
        "nothing": put("nll", pa.nulls(num_rows)),
        "one nothing": put("nll", pa.array([None, *nll[1:]])),
        "not a number": put("nll", pa.array([float("nan"), *nll[1:]])),
        "infinite": put("base_nll", pa.array([float("inf"), *nll[1:]])),
        "negative bytes": put("num_bytes", pa.array([-5] * num_rows)),
        "no bytes": put("num_bytes", pa.array([0] * num_rows)),
        "negative nll": put("nll", pa.array([-1.0] * num_rows)),
        "enormous": put("num_tokens", pa.array([2**63 - 1] * num_rows)),
        "broken tokens": put("num_tokens", pa.array([0.5] * num_rows)),
        "one document": put("document_hash", pa.array(["a"] * num_rows)),
        "no rows": table.slice(0, 0),
        "fewer rows": table.slice(1),
        "no columns": table.select([]),
        "twice": table.append_column("nll", table.column("nll")),
        **{f"no {name}": table.drop_columns([name]) for name in table.column_names if name != "base_nll"},
    }


def test_tables_that_no_run_has_written_are_refused_in_a_sentence(out: Path) -> None:
    record = finished_runs(out)[0]
    path = out / "runs" / record.run_id / "documents" / "validation.parquet"
    store, content = RecordStore(out), path.read_bytes()
    for name, table in hostile_tables(pq.read_table(path)).items():
        pq.write_table(table, path)
        changed = record.model_copy(
            update={"files": {**record.files, "documents/validation.parquet": sha256_file(path)}}
        )
        with pytest.raises(DamagedFileError, match=r"validation\.parquet: it cannot be used: "):
            store.documents(changed, "validation", expected(record, "validation"))
        store.write(changed)
        (problem,) = analyse(*loaded(out)).problems
        assert "validation.parquet: it cannot be used: " in problem, name
    for end in (b"", b"PAR1", content[: len(content) // 2]):
        with pytest.raises(ValueError, match="not Parquet"):
            parse_documents(end, expected(record, "validation"))


def test_a_file_that_the_record_does_not_list_is_not_believed(out: Path) -> None:
    store, record = RecordStore(out), finished_runs(out)[0]
    bare = record.model_copy(update={"files": {}})
    for read in (
        lambda: store.documents(bare, "validation", expected(record, "validation")),
        lambda: store.metrics(bare),
        lambda: store.check_adapter(bare),
    ):
        with pytest.raises(DamagedFileError, match="the record does not list it"):
            read()
    (store.run_dir(record.run_id) / "adapter" / "model.safetensors").write_bytes(b"another")
    with pytest.raises(DamagedFileError, match=r"model\.safetensors: the record does not list it"):
        check_adapter_of_run(store.run_dir(record.run_id) / "adapter")


def test_the_curve_of_a_run_that_did_not_finish_is_shown_as_unchecked(out: Path) -> None:
    store = RecordStore(out)
    (failed,) = [record for record in store.read_all()[0] if record.status is Status.FAILED]
    lines = [json.dumps({"kind": "step", "step": step, "smoothed_loss": 3.0}) for step in (1, 2)]
    hostile = [
        "[" * 100_000,
        '{"kind": "step", "step": 3, "smoothed_loss": 1e999}',
        '{"step": ' + "9" * 400 + "}",
        "\xff",
    ]
    path = store.run_dir(failed.run_id) / "metrics.jsonl"
    path.write_text("\n".join([*lines, *hostile]), encoding="latin-1")
    assert [line["step"] for line in store.metrics(failed)] == [1, 2]
    assert not store.has_checked_metrics(failed)
    assert build_report(store, figures=False).problems == []
    assert '"note":"unfinished, unchecked"' in (out / "results" / "report.html").read_text().replace(": ", ":")


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": make_socket,
}


def spoil(path: Path, how: str) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    IN_THE_WAY[how](path)


@pytest.mark.parametrize("how", IN_THE_WAY)
def test_other_things_in_place_of_files_are_refused_at_once(out: Path, how: str) -> None:
    names = ["record.json", "metrics.jsonl", *(f"documents/{split}.parquet" for split in SPLITS)]
    names += ["adapter/adapter_config.json"]
    (run_id,) = analyse(*loaded(out)).corpora[0].candidates[0].run_ids
    for name in names:
        again = out.parent / name.replace("/", "-")
        shutil.copytree(out, again)
        path = again / "runs" / run_id / name
        spoil(path, how)
        with pytest.raises(DiskError, match=path.name):
            everything(RecordStore(again), run_id, name)
        paths = build_report(RecordStore(again), figures=False)
        assert len(paths.problems) == (not name.startswith("adapter"))
        assert all(path.name in problem for problem in paths.problems)


@pytest.mark.parametrize("how", [*IN_THE_WAY, "a file"])
def test_what_is_no_run_in_the_folder_of_runs_is_named_and_the_others_go_on(out: Path, how: str) -> None:
    record, *others = RecordStore(out).read_all()[0]
    path = out / "runs" / record.run_id
    shutil.rmtree(path)
    if how == "a file":
        path.write_text("")
    else:
        IN_THE_WAY[how](path)
    strange = [os.fsencode(out / "runs") + b"/caf\xe9", os.fsencode(out / "runs" / "two words")]
    for name in strange:
        os.mkdir(name)
    (out / "runs" / ".DS_Store").write_text("")
    (out / "runs" / f"{record.run_id}.damaged-20261128-101112").mkdir()
    store = RecordStore(out)
    records, problems = store.read_all()
    assert records == others
    assert sorted(problem.path for problem in problems) == sorted(
        [path, *(Path(os.fsdecode(name)) for name in strange)]
    )
    (problem,) = [str(problem) for problem in problems if problem.path == path]
    if how == "a folder":
        assert "there is no record.json" in problem
        assert store.make_room(record.run_id) == []
    else:
        assert "lies where a run's folder belongs; lorabench run sets it aside" in problem
        with pytest.raises(DamagedRecordError):
            store.get(record.run_id)
        (told,) = store.make_room(record.run_id)
        assert told.startswith(f"{path} is a")
        assert not os.path.lexists(path)
        assert store.make_room(record.run_id) == []
    assert len(build_report(store, figures=False).problems) == len(problems) - (how != "a folder")
    assert "café" not in (out / "results" / "results_summary.md").read_text()


def test_a_run_that_is_going_on_is_no_problem_and_a_lost_record_is(out: Path) -> None:
    record = finished_runs(out)[0]
    folder = out / "runs" / "begun"
    folder.mkdir()
    (folder / "lease").write_text("")
    (folder / "metrics.jsonl").write_text("")
    (out / "runs" / record.run_id / "record.json").unlink()
    (problem,) = RecordStore(out).read_all()[1]
    assert str(problem).startswith(f"{out / 'runs' / record.run_id}: there is no record.json; lorabench run does")


def test_a_record_of_a_newer_lorabench_costs_its_own_run_alone(out: Path) -> None:
    record, *others = RecordStore(out).read_all()[0]
    store = RecordStore(out)
    store.write(record.model_copy(update={"schema_version": 99}))
    records, (problem,) = store.read_all()
    assert records == others
    assert "written by a newer lorabench" in str(problem)
    assert not isinstance(problem, DamagedRecordError)
    assert isinstance(problem, RecordProblem)


def test_hundreds_of_damaged_files_do_not_bury_the_summary(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, num_documents=4, steps=2)
    results.grid(ranks=list(range(1, 61)), learning_rates=[1e-3, 2e-3])
    for path in (tmp_path / "runs").glob("*/documents/*.parquet"):
        path.write_bytes(b"")
    paths = build_report(RecordStore(tmp_path), figures=False)
    assert len(paths.problems) >= 120
    for name in ("results_summary.md", "report.html"):
        text = (tmp_path / "results" / name).read_text()
        assert text.count("validation.parquet: ") + text.count("validation.parquet\\: ") == 8
        assert f"… and {len(paths.problems) - 8} more; lorabench report prints them all" in text


def test_views_are_written_whatever_lies_in_their_place(out: Path) -> None:
    results = out / "results"
    for name in ("benchmark_results.csv", "results_summary.md", "report.html", "figures/training_curves.svg"):
        (results / name).mkdir(parents=True)
        (results / name / "kept").write_text("")
    paths = build_report(RecordStore(out))
    assert paths.problems == []
    assert all(path.is_file() for path in paths.written)
    assert (results / "figures" / "training_curves.svg").is_file()
    shutil.rmtree(results / "figures")
    (results / "figures").write_text("in the way")
    assert (results / "figures").is_file()
    build_report(RecordStore(out))
    assert (results / "figures" / "training_curves.svg").is_file()
    assert len(list(results.rglob("*.damaged-*"))) == 4


HOSTILE_VALUES = (0, -1, 2**63, 10**30, 1e308, 5e-324, "", "\x00\x1b[31m\ud800", "nan", None, True, [], {}, [None])


def places(values: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested JSON but the whole."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from places(value, (*above, key))


@pytest.mark.slow
def test_records_with_hostile_values_and_a_right_hash_are_read_or_refused(out: Path) -> None:
    from lorabench.records.store import _digest

    generator = random.Random(5)
    record = finished_runs(out)[0]
    path = out / "runs" / record.run_id / "record.json"
    whole = json.loads(path.read_bytes())
    del whole["record_sha256"]
    every = list(places(whole))
    num_read = 0
    for trial in range(150):
        values, place = json.loads(json.dumps(whole)), generator.choice(every)
        inner = values
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = generator.choice(HOSTILE_VALUES)
        path.write_text(json.dumps(values | {"record_sha256": _digest(values)}))
        store = RecordStore(out)
        problems = store.read_all()[1]
        assert all(problem.path == path for problem in problems)
        num_read += not problems
        if not problems or trial % 40 == 0:
            build_report(store, figures=False)
    assert num_read > 10
