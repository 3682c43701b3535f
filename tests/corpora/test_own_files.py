"""Corpora of one's own files: several, splits, large ones, those beside an experiment, standard input."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorabench.core.errors import ConfigError, DataError, InputError
from lorabench.corpora.catalog import find_corpus
from lorabench.corpora.references import CorpusReference, parts_of, read_reference, write_reference
from lorabench.corpora.sources import file as file_source
from lorabench.corpora.store import corpus_revision, load_corpus, load_prepared, prepared_folder
from lorabench.experiment.schema import build_experiment, load_experiment
from lorabench.scoring.text import read_scored_text

TEXTS = [
    f"Letter {number} of {number * number} words, about {number * 7919} and {number * 104729}." for number in range(120)
]


def write(path: Path, texts: list[str], field: str = "text") -> str:
    content = "".join(json.dumps({field: text, "id": number}) + "\n" for number, text in enumerate(texts)).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def test_splits_of_ones_own_are_kept_and_copies_across_them_removed(tmp_path: Path, cache: Path) -> None:
    for part in range(3):
        write(tmp_path / f"part{part}.jsonl.gz", TEXTS[part * 30 : part * 30 + 30])
    copied = TEXTS[5]
    write(tmp_path / "v.jsonl", [*TEXTS[90:100], copied])
    write(tmp_path / "t.jsonl", TEXTS[100:])
    reference = CorpusReference(
        name="letters",
        train=str(tmp_path / "part*.jsonl.gz"),
        validation=str(tmp_path / "v.jsonl"),
        test=(str(tmp_path / "t.jsonl"),),
        near_duplicates="keep",
    )
    corpus = load_corpus(reference, max_train_bytes=None)
    texts = {split: {document.text for document in documents} for split, documents in corpus.splits.items()}
    assert texts["validation"] == {*TEXTS[90:100], copied}
    assert texts["test"] == set(TEXTS[100:])
    assert texts["train"] == set(TEXTS[:90]) - {copied}
    assert corpus.info.removed["exact_duplicates"] == 1
    only_train = find_corpus(reference.model_copy(update={"test": None}))
    assert corpus_revision(only_train) != corpus.revision
    made = load_prepared(only_train, max_train_bytes=None)
    assert {document.text for document in made.splits["test"]} < set(TEXTS[:90])


def test_references_with_splits_survive_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("a.jsonl"), TEXTS, "body")
    write(Path("b.jsonl"), TEXTS[:20], "body")
    parts = {"name": "x", "train": ["a.jsonl"], "validation": "b.jsonl", "text": "body"}
    experiment = build_experiment({"name": "x", "models": ["gpt2"], "datasets": [parts]})
    assert build_experiment(yaml.safe_load(experiment.to_yaml())) == experiment
    kept = write_reference(experiment.datasets[0])
    monkeypatch.chdir("/")
    again = parts_of(read_reference(str(kept)))
    assert again.train == (str(tmp_path / "a.jsonl"),)
    assert find_corpus(again).name == "x"


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"path": "a.jsonl", "test": "b.jsonl"}, "exclude one another"),
        ({"validation": "a.jsonl"}, "without train"),
        ({"name": "news", "text": "body"}, "the catalogue says what is text"),
        ({"path": "a.csv", "text": "{title"}, "text: .*the template cannot be read"),
        ({"path": "a.csv", "text": []}, "text: .* is not accepted"),
        ({"path": "a.csv", "config": "x"}, "config: only a data set on the hub"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(parts: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build_experiment({"name": "x", "models": ["gpt2"], "datasets": [parts]})


def test_the_field_that_was_found_is_named_and_templates_are_filled(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "a.jsonl", TEXTS, "body")
    found = load_corpus(CorpusReference(path=path, near_duplicates="keep"), max_train_bytes=None)
    assert "the text is the field 'body'" in str(found.info.notes)
    framed = load_corpus(CorpusReference(path=path, text="{id}: {body}", near_duplicates="keep"), max_train_bytes=None)
    assert framed.revision != found.revision


def test_the_same_bytes_in_another_format_are_another_corpus(tmp_path: Path) -> None:
    for suffix in (".csv", ".tsv", ".txt"):
        (tmp_path / f"a{suffix}").write_text("text\n" + "\n".join(TEXTS))
    names = {find_corpus(str(tmp_path / f"a{suffix}")).name for suffix in (".csv", ".tsv", ".txt")}
    assert len(names) == 3


def test_large_files_are_drawn_from_everywhere(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_source, "WHOLE_BYTES", 100_000)
    monkeypatch.setattr(file_source, "STEP_BYTES", 20_000)
    texts = [f"{number:05} " + " ".join(str((number * 7919 + k) % 9973) for k in range(20)) for number in range(6000)]
    path = write(tmp_path / "a.jsonl", texts)
    whole = find_corpus(path)
    corpus = load_corpus(path, max_train_bytes=10_000)
    numbers = [int(document.text[:5]) for documents in corpus.splits.values() for document in documents]
    assert 18_000 < sum(corpus.info.num_bytes.values()) < 22_000
    assert min(numbers) < 600
    assert max(numbers) > 5400
    assert "at 64 places spread evenly over the file" in str(corpus.info.notes)
    assert load_corpus(path, max_train_bytes=14_000).revision == corpus.revision
    assert find_corpus(path, max_train_bytes=10_000).name == corpus.name
    more = whole.drawn_for(60_000)
    assert len({whole.name, corpus.name, more.name}) == 3
    assert prepared_folder(more, more.bytes_to_read(60_000)) != prepared_folder(whole, None)
    assert load_corpus(path, max_train_bytes=None).info.num_bytes["train"] > 100_000


def test_paths_are_looked_up_beside_the_experiment_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, here = tmp_path / "experiments", tmp_path / "here"
    for folder in (beside, here):
        (folder / "data").mkdir(parents=True)
        write(folder / "a.jsonl", [folder.name])
    write(here / "only_here.jsonl", ["x"])
    write(beside / "data" / "v.jsonl", ["x"])
    monkeypatch.chdir(here)
    file = beside / "e.yaml"
    values: dict[str, Any] = {
        "name": "x",
        "models": ["gpt2"],
        "datasets": [
            "a.jsonl",
            "only_here.jsonl",
            "news",
            "data",
            {"train": ["a.jsonl"], "validation": "data/*.jsonl"},
        ],
        "evaluation": {"also_on": "a.jsonl"},
    }
    file.write_text(yaml.safe_dump(values))
    experiment = load_experiment(file)
    first, second, third, folder, split = experiment.datasets
    assert (first, second, third) == (str(beside / "a.jsonl"), "only_here.jsonl", "news")
    assert folder == str(beside / "data")
    assert isinstance(split, CorpusReference)
    assert split.files == {"train": (str(beside / "a.jsonl"),), "validation": (str(beside / "data/*.jsonl"),)}
    assert experiment.evaluation.also_on == (str(beside / "a.jsonl"),)
    values["datasets"] = ["b.jsonl"]
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=rf"b\.jsonl: there is no such file, neither in {beside}.* nor in {here}"):
        load_experiment(file)


def test_what_no_reference_means_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for reference, named in {
        "-": "evaluate --data -",
        "https://example.org/a.jsonl": "addresses are not read",
        "none.csv": "there is no such file",
        "/dev/stdin": "it is not a file|cannot be read|not read",
    }.items():
        with pytest.raises(DataError, match=named):
            find_corpus(reference)
    (tmp_path / "noext").write_text("text")
    with pytest.raises(DataError, match=r"noext: files of this kind are not read; accepted: \.txt"):
        find_corpus("noext")


@pytest.mark.parametrize(
    "content", ['{"text": "one"}\n{"text": "two"}\n', "one\n\ntwo\n", '[{"text": "one"}, {"text": "two"}]']
)
def test_standard_input_is_scored(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert [piece.text for piece in read_scored_text("-").drawn.pieces] == ["one", "two"]
    with pytest.raises(InputError, match="scored whole"):
        read_scored_text("-", split="test")
