"""Files that were cut short, edited or lost, full and unwritable disks: named, set aside, done again, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import lorabench
from lorabench.core.errors import DiskError, InputError
from lorabench.core.storage import sha256_file
from lorabench.records.reading import DamagedFileError
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import RecordStore
from tests.marks import remount, slow
from tests.runs.conftest import ExperimentWriter, new_cache

SHORT = {"rank": 2}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": cut,
    "empty": empty,
    "a folder": a_folder,
    "a pipe": a_pipe,
    "gone": Path.unlink,
}
FILES = (
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "documents/validation.parquet",
    "documents/test.parquet",
    "metrics.jsonl",
)
QUICK = {("record.json", "gone"), ("adapter/adapter_model.safetensors", "flipped"), ("metrics.jsonl", "flipped")}


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, how) if (name, how) in QUICK else slow(name, how) for name in ("record.json", *FILES) for how in DAMAGE],
)
def test_damage_beside_a_record_is_found_and_the_run_done_again(
    experiment: ExperimentWriter,
    tmp_path: Path,
    finished: RunRecord,
    capsys: pytest.CaptureFixture[str],
    name: str,
    how: str,
) -> None:
    out = tmp_path / "out"
    path = out / "runs" / finished.run_id / name
    before = path.read_bytes()
    DAMAGE[how](path)
    outcome = lorabench.run(experiment(adapter=SHORT), out, trackers=["none"])
    (again,) = outcome.records
    assert outcome.num_skipped == 0
    assert again.status is Status.COMPLETED
    assert again.validation == finished.validation
    assert again.test == finished.test
    assert {name: again.files[name] for name in FILES[:4]} == {name: finished.files[name] for name in FILES[:4]}
    if how != "gone":
        assert path.name in capsys.readouterr().err
        what = path.parent if name.startswith("adapter/") else path  # an adapter is set aside whole
        (aside,) = what.parent.glob(f"{what.name}.damaged-*")
        kept = aside / path.name if name.startswith("adapter/") else aside
        assert not kept.is_file() or kept.read_bytes() != before
    assert lorabench.run(experiment(adapter=SHORT), out, trackers=["none"]).num_skipped == 1


@pytest.mark.parametrize("how", ["flipped", *map(slow, ("cut", "empty", "a folder", "a pipe"))])
@pytest.mark.parametrize("kind", ["base_scores", slow("tokens"), slow("corpora")])
def test_damaged_caches_are_named_and_made_again(
    experiment: ExperimentWriter,
    tmp_path: Path,
    finished: RunRecord,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    how: str,
) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(new_cache(tmp_path / "cache")))
    out = tmp_path / "second"
    lorabench.run(experiment(adapter=SHORT), out, trackers=["none"])
    folder = {"base_scores": out / "base_scores"}.get(kind, tmp_path / "cache" / kind)
    kept = {".parquet", ".tokens", ".json"}
    files = [path for path in folder.rglob("*") if path.suffix in kept and "lock" not in path.name]
    assert files
    for path in files:
        DAMAGE[how](path)
    (out / "runs" / finished.run_id / "record.json").unlink()
    (again,) = lorabench.run(experiment(adapter=SHORT), out, trackers=["none"]).records
    assert again.status is Status.COMPLETED
    assert (again.base_validation, again.validation, again.test) == (
        finished.base_validation,
        finished.validation,
        finished.test,
    )
    assert "damaged" in caplog.text
    assert list(folder.rglob("*.damaged-*"))


def test_a_record_of_another_run_is_not_believed(tmp_path: Path, finished: RunRecord) -> None:
    store = RecordStore(tmp_path / "out")
    other = store.runs_dir / "other"
    other.mkdir()
    (other / "record.json").write_bytes((store.run_dir(finished.run_id) / "record.json").read_bytes())
    records, damaged = store.read_all()
    assert [record.run_id for record in records] == [finished.run_id]
    assert "it is the record of" in str(damaged[0])


def test_edited_results_of_documents_do_not_reach_a_report(tmp_path: Path, finished: RunRecord) -> None:
    store = RecordStore(tmp_path / "out")
    path = store.run_dir(finished.run_id) / "documents" / "test.parquet"
    table = pd.read_parquet(path)
    table["nll"] *= 0.5
    table.to_parquet(path)
    assert finished.test is not None
    with pytest.raises(DamagedFileError, match=r"test\.parquet: it is not as it was written"):
        store.documents(finished, "test", finished.test)


SAVE_FOR_EVER = """
import sys
from pathlib import Path
from lorabench.core.errors import DiskError
from lorabench.core.storage import new_folder, write_atomically
target = Path(sys.argv[1])
version = 0
try:
    while version < 1000:
        version += 1
        content = version.to_bytes(4, "little") * (1 + 997 * version)
        write_atomically(target / "file", content)
        with new_folder(target / "folder") as folder:
            (folder / "part").write_bytes(content)
except DiskError as error:
    print(version, error)
"""


def whole_version(path: Path) -> int:
    content = path.read_bytes()
    version = int.from_bytes(content[:4], "little")
    assert content == version.to_bytes(4, "little") * (1 + 997 * version)
    return version


@pytest.mark.parametrize("small_disk", ["size=256k"], indirect=True)
def test_a_disk_that_fills_up_keeps_the_last_whole_version(small_disk: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAVE_FOR_EVER, str(small_disk)], capture_output=True, text=True, check=True
    )
    failed_at = int(done.stdout.split()[0])
    assert "No space left on device; free some space" in done.stdout
    assert failed_at > 5
    assert whole_version(small_disk / "file") in {failed_at - 1, failed_at}
    assert whole_version(small_disk / "folder" / "part") == failed_at - 1
    assert {path.name for path in small_disk.iterdir()} == {"file", "folder"}


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_writer_leaves_a_whole_version_and_its_leftovers_go(tmp_path: Path, seed: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE)
    while not (tmp_path / "folder").exists():
        time.sleep(0.01)
    time.sleep(0.02 + 0.037 * seed)
    process.kill()
    process.communicate()
    last = whole_version(tmp_path / "file")
    stands = (tmp_path / "folder").exists()  # else it was killed between two renames, and the earlier one lies beside
    assert whole_version(tmp_path / ("folder" if stands else ".replaced-folder") / "part") in {last - 1, last}
    from lorabench.core.storage import new_folder, write_atomically

    write_atomically(tmp_path / "file", b"new")
    with new_folder(tmp_path / "folder") as folder:
        (folder / "part").write_bytes(b"new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


@pytest.mark.parametrize("small_disk", [slow("size=60k"), slow("size=120k"), slow("size=180k")], indirect=True)
def test_a_run_on_a_disk_too_small_is_told_and_ends_well_once_there_is_room(
    experiment: ExperimentWriter, small_disk: Path, finished: RunRecord
) -> None:
    path = experiment(adapter=SHORT)
    command = [sys.executable, "-m", "lorabench", "run", str(path), "--output-dir", str(small_disk / "out")]
    done = subprocess.run([*command, "--tracker", "none", "--checkpoint-seconds", "0"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    remount(small_disk, "size=20m")
    outcome = lorabench.run(path, small_disk / "out", trackers=["none"])  # the same command
    assert [record.status for record in outcome.records] == [Status.COMPLETED]
    assert outcome.records[0].validation == finished.validation
    name = "adapter/adapter_model.safetensors"
    assert outcome.records[0].files[name] == finished.files[name]


def blocked_by_a_file(out: Path, name: str) -> None:
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("in the way")


@pytest.mark.parametrize("name", ["runs", "results", "base_scores"])
def test_a_file_in_place_of_a_folder_is_told_before_anything_is_done(
    experiment: ExperimentWriter, tmp_path: Path, name: str
) -> None:
    blocked_by_a_file(tmp_path / "out", name)
    with pytest.raises(DiskError, match=rf"out/{name} cannot be written: .*choose a folder"):
        lorabench.run(experiment(adapter=SHORT), tmp_path / "out", trackers=["none"])


def test_an_output_folder_that_is_a_file_is_wrong_input(experiment: ExperimentWriter, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out: it is not a folder"):
        lorabench.run(experiment(adapter=SHORT), tmp_path / "out", trackers=["none"])


@pytest.mark.parametrize("small_disk", ["ro,size=64k"], indirect=True)
def test_a_read_only_output_folder_is_told(experiment: ExperimentWriter, small_disk: Path) -> None:
    with pytest.raises(DiskError, match="cannot be written: Read-only file system"):
        lorabench.run(experiment(adapter=SHORT), small_disk / "out", trackers=["none"])


@pytest.mark.parametrize("small_disk", ["ro,size=64k"], indirect=True)
def test_a_read_only_cache_is_told(
    experiment: ExperimentWriter, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(small_disk / "cache"))
    with pytest.raises(DiskError, match="set LORABENCH_CACHE to a folder on another"):
        lorabench.run(experiment(adapter=SHORT), tmp_path / "out", trackers=["none"])


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_text("in the way"),
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}
FILES_OF_A_RUN, FOLDERS_OF_A_RUN = ("metrics.jsonl", "lease"), ("documents", "adapter", "checkpoints")


@pytest.mark.parametrize("how", ["a file", *(slow(how) for how in IN_THE_WAY if how != "a file")])
def test_what_lies_where_a_run_belongs_is_set_aside_and_every_run_is_done(
    experiment: ExperimentWriter, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    path = experiment()
    first, second = (tmp_path / "out" / "runs" / run.run_id for run in lorabench.plan(path).runs)
    names = {"a file": FOLDERS_OF_A_RUN, "a folder": FILES_OF_A_RUN}.get(how, FILES_OF_A_RUN + FOLDERS_OF_A_RUN)
    in_the_way = [second / name for name in names] + [first] * (how != "a folder")
    second.mkdir(parents=True)
    for item in in_the_way:
        IN_THE_WAY[how](item)
    outcome = lorabench.run(path, tmp_path / "out", trackers=["none"])
    assert [record.status for record in outcome.records] == [Status.COMPLETED] * 2
    told = capsys.readouterr().err
    for item in in_the_way:
        assert f"{item} is {how.replace('itself', 'nothing')}; it was set aside as {item.name}.damaged-" in told
        assert len(list(item.parent.glob(f"{item.name}.damaged-*"))) == 1
    assert lorabench.run(path, tmp_path / "out", trackers=["none"]).num_skipped == 2


def test_a_lease_that_cannot_be_taken_costs_its_own_run_alone(
    experiment: ExperimentWriter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = experiment()
    first, second = (tmp_path / "out" / "runs" / run.run_id for run in lorabench.plan(path).runs)
    first.parent.mkdir(parents=True)
    first.symlink_to("/proc")  # a folder in which nobody can make a file
    outcome = lorabench.run(path, tmp_path / "out", trackers=["none"])
    assert [record.run_id for record in outcome.records] == [second.name]
    assert outcome.records[0].status is Status.COMPLETED
    assert outcome.exit_code == 1
    assert outcome.counts.sentence() == "1 of 2 runs completed; 1 not reached"
    told = capsys.readouterr().err
    assert told.count(f"{first}/lease cannot be written: ") == 1
    assert "the run is left alone" in told
    again = lorabench.run(path, tmp_path / "out", trackers=["none"])
    assert (again.exit_code, again.num_skipped) == (1, 1)


@pytest.mark.parametrize("name", ["", "documents", "adapter"])
def test_a_link_to_another_run_takes_nothing_from_it(
    experiment: ExperimentWriter, tmp_path: Path, finished: RunRecord, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = experiment(adapter={**SHORT, "rank": [finished.spec.adapter.rank, 3]})
    (other,) = {run.run_id for run in lorabench.plan(path).runs} - {finished.run_id}
    store = RecordStore(tmp_path / "out")
    link = store.run_dir(other) / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(store.run_dir(finished.run_id) / name)
    outcome = lorabench.run(path, tmp_path / "out", trackers=["none"])
    assert outcome.counts.sentence() == "2 of 2 runs completed, 1 of them before"
    assert (
        f"{link} is a link to {store.run_dir(finished.run_id) / name}; it was set aside as " in capsys.readouterr().err
    )
    for record in outcome.records:
        assert store.damaged_files(record) == []


def test_a_run_that_is_left_alone_has_no_number(
    experiment: ExperimentWriter, tmp_path: Path, finished: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    RecordStore(tmp_path / "out").write(finished.model_copy(update={"schema_version": 99}))
    adapter = {**SHORT, "rank": [finished.spec.adapter.rank, 3]}
    outcome = lorabench.run(experiment(adapter=adapter), tmp_path / "out", trackers=["none"])
    assert len(outcome.records) == 1
    told = capsys.readouterr().err
    assert "the run is left alone" in told
    assert "run 1 of 1, " in told
    assert "run 2 of" not in told


def test_damage_in_one_experiment_costs_no_other_in_the_folder_anything(
    experiment: ExperimentWriter, tmp_path: Path, finished: RunRecord
) -> None:
    path = tmp_path / "out" / "runs" / finished.run_id / "documents" / "validation.parquet"
    table = pd.read_parquet(path)
    table["document_hash"] = [b"\xff\xfe"] * len(table)
    table.to_parquet(path)
    outcome = lorabench.run(experiment(name="another", adapter={"rank": 4}), tmp_path / "out", trackers=["none"])
    assert outcome.exit_code == 0
    (problem,) = outcome.problems
    assert problem.startswith(f"{path}: it is not as it was written")
    summary = (tmp_path / "out" / "results" / "results_summary.md").read_text()
    assert "Records and files that could not be used" in summary
    assert "until then it has no interval on validation" in summary
    assert path.is_file()  # only its own experiment sets it aside


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"])
def test_a_damaged_adapter_is_not_scored(
    tmp_path: Path, finished: RunRecord, corpus: Path, tiny_model: Callable[[str], Path], name: str
) -> None:
    folder = tmp_path / "out" / "runs" / finished.run_id
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-2] + b" " + content[-1:])
    with pytest.raises(DamagedFileError, match=rf"{Path(name).name}: it is not as it was written"):
        lorabench.evaluate(str(tiny_model("smollm2")), corpus, adapter=folder / "adapter")
    (folder / name).write_bytes(content)
    assert lorabench.evaluate(str(tiny_model("smollm2")), corpus, adapter=folder / "adapter")["bits_per_byte"] > 0


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lorabench", *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow
def test_every_command_names_the_damage_that_it_meets(tmp_path: Path, finished: RunRecord) -> None:
    out = tmp_path / "out"
    folder = out / "runs" / finished.run_id
    for name in ("documents/validation.parquet", "metrics.jsonl"):
        flip(folder / name)
    told = f"{folder / 'documents/validation.parquet'}: it is not as it was written"
    report = command("report", out)
    assert report.returncode == 0
    assert told in report.stderr
    assert f"{folder / 'metrics.jsonl'}: it is not as it was written" in report.stderr
    shown = command("show", finished.run_id, "--output-dir", out)
    assert shown.returncode == 0
    assert told in shown.stdout
    assert "Perplexity by length" not in shown.stdout
    assert "training loss" not in shown.stdout
    again = command("reproduce", finished.run_id, "--output-dir", out)
    assert again.returncode == 1
    assert told in again.stderr
    assert not (out / "reproductions").exists()
    flip(folder / "adapter/adapter_model.safetensors")
    scored = command("score-test", finished.run_id, "--again", "--output-dir", out)
    assert scored.returncode == 2
    assert "is damaged; give its lorabench run again" in scored.stderr
    flip(folder / "record.json")
    refused = command("show", finished.run_id, "--output-dir", out)
    assert refused.returncode == 1
    assert "record.json: the record is damaged" in refused.stderr
    for done in (report, shown, again, scored, refused):
        assert "Traceback" not in done.stderr + done.stdout


def test_a_record_of_a_newer_lorabench_is_left_alone_and_the_others_are_done(
    experiment: ExperimentWriter, tmp_path: Path, finished: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    RecordStore(tmp_path / "out").write(finished.model_copy(update={"schema_version": 99}))
    outcome = lorabench.run(experiment(), tmp_path / "out", trackers=["none"])
    assert outcome.exit_code == 1
    assert [record.status for record in outcome.records] == [Status.COMPLETED]
    assert (
        "written by a newer lorabench; use that one for this folder; the run is left alone" in capsys.readouterr().err
    )
    values = json.loads((tmp_path / "out" / "runs" / finished.run_id / "record.json").read_bytes())
    assert values["schema_version"] == 99


def test_a_corpus_that_changes_while_the_experiment_runs_fails_its_runs(
    experiment: ExperimentWriter, tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorabench.runs import scheduler as pipeline

    text = tmp_path / "changing.jsonl"
    text.write_bytes(corpus.read_bytes())
    planned = pipeline.make_plan

    def plan_then_change(*arguments: object) -> object:
        plan = planned(*arguments)  # type: ignore[arg-type]
        text.write_bytes(text.read_bytes() + b'{"text": "One more document, of which the plan knows nothing."}\n')
        return plan

    monkeypatch.setattr(pipeline, "make_plan", plan_then_change)
    (record,) = lorabench.run(
        experiment(adapter=SHORT, datasets=[str(text)]), tmp_path / "out", trackers=["none"]
    ).records
    assert record.status is Status.FAILED
    assert "the corpus changed while the experiment ran" in str(record.status_reason)


def test_a_clock_that_jumps_is_told(
    experiment: ExperimentWriter, tmp_path: Path, finished: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, readings = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() - 7200 * min(1, next(readings)))
    (record,) = lorabench.run(experiment(adapter=SHORT), tmp_path / "second", trackers=["none"]).records
    assert any("clock was moved by -7200 s" in note for note in record.notes)
    assert record.validation == finished.validation
    assert record.speed is not None
    assert 0 <= record.speed.total_seconds < 600


def test_half_written_leftovers_are_cleared(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path = experiment(adapter=SHORT)
    (run,) = lorabench.plan(path).runs
    folder = tmp_path / "out" / "runs" / run.run_id
    for name in (".writing-adapter/x", ".replaced-adapter/x", "documents/.writing-1-2-test.parquet", "adapter/old"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("half")
    (record,) = lorabench.run(path, tmp_path / "out", trackers=["none"]).records
    found = {item.relative_to(folder).as_posix() for item in folder.rglob("*") if item.is_file()}
    assert found == {"record.json", "lease", *record.files}


def test_checkpoints_left_by_a_kill_after_the_record_go(
    experiment: ExperimentWriter, tmp_path: Path, finished: RunRecord
) -> None:
    folder = tmp_path / "out" / "runs" / finished.run_id
    (folder / "checkpoints" / "step-00000025").mkdir(parents=True)
    assert lorabench.run(experiment(adapter=SHORT), tmp_path / "out", trackers=["none"]).num_skipped == 1
    assert not (folder / "checkpoints").exists()


def test_hashes_in_the_record_are_those_of_the_files(tmp_path: Path, finished: RunRecord) -> None:
    folder = tmp_path / "out" / "runs" / finished.run_id
    assert set(FILES) <= set(finished.files)
    for name, digest in finished.files.items():
        assert sha256_file(folder / name) == digest
    assert json.loads((folder / "record.json").read_text())["files"] == finished.files
