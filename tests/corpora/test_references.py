"""A corpus by its parts: what an entry of `datasets` or `also_on` may be, and near copies that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorabench.core.errors import ConfigError, DataError, InputError, UnknownNameError
from lorabench.corpora.catalog import find_corpus
from lorabench.corpora.drawing import DrawnText
from lorabench.corpora.references import CorpusReference, parts_of, read_reference, write_reference
from lorabench.corpora.store import corpus_revision, load_corpus, prepared_folder, read_corpus_info
from lorabench.experiment.schema import build_experiment
from lorabench.scoring.text import WHOLE_FILE, read_scored_text

FORM = "Patient admitted with condition code {}. Please review the chart and sign the form before discharge. Thank you."


@pytest.fixture
def forms(tmp_path: Path) -> str:
    path = tmp_path / "forms.jsonl"
    path.write_text("".join(json.dumps({"text": FORM.format(number)}) + "\n" for number in range(300)))
    return str(path)


def experiment_on(datasets: Any, **evaluation: Any) -> Any:
    return build_experiment({"name": "x", "models": ["gpt2"], "datasets": datasets, "evaluation": evaluation})


def test_near_copies_are_kept_where_the_corpus_says_so(forms: str, cache: Path) -> None:
    with pytest.raises(DataError, match="near_duplicates: keep"):
        load_corpus(forms, max_train_bytes=None)
    reference = CorpusReference(path=forms, near_duplicates="keep")
    corpus = load_corpus(reference, max_train_bytes=None)
    assert sum(map(len, corpus.splits.values())) == 300
    assert corpus.info.near_duplicates == "keep"
    assert corpus.info.removed["near_duplicates"] == 0
    assert "documents of train are near copies" in str(corpus.info.notes)
    assert read_corpus_info(find_corpus(reference)) == corpus.info
    assert read_corpus_info(find_corpus(forms)) is None


@pytest.mark.parametrize("name", ["file", "medical", "stories"])
def test_keeping_makes_another_corpus(name: str, forms: str) -> None:
    parts = CorpusReference(path=forms) if name == "file" else CorpusReference(name=name)
    removed = find_corpus(parts)
    kept = find_corpus(parts.model_copy(update={"near_duplicates": "keep"}))
    assert kept.name != removed.name
    assert corpus_revision(kept) != corpus_revision(removed)
    assert prepared_folder(kept, None) != prepared_folder(removed, None)
    assert find_corpus(str(parts)) == removed


def test_a_catalogue_corpus_can_keep_its_copies(cache: Path) -> None:
    corpus = load_corpus(CorpusReference(name="stories", near_duplicates="keep"), max_train_bytes=None)
    source = find_corpus(CorpusReference(name="stories", near_duplicates="keep"))
    assert corpus.name == source.name == "stories-near-duplicates-kept"
    assert corpus.revision == corpus_revision(source)
    assert corpus.splits == load_corpus("stories", max_train_bytes=None).splits


def test_a_file_is_called_as_the_user_says(forms: str) -> None:
    named = find_corpus(CorpusReference(name="Aufnahmebögen", path=forms))
    assert named.name == "Aufnahmebögen"
    assert corpus_revision(named) == corpus_revision(find_corpus(forms))
    with pytest.raises(DataError, match="cannot be called news"):
        find_corpus(CorpusReference(name="news", path=forms))


@pytest.mark.parametrize("key", ["datasets", "also_on"])
@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"nam": "x"}, "nam: unknown key. Did you mean 'name'"),
        ({}, "needs name .* or path"),
        ({"near_duplicates": "keep"}, "needs name .* or path"),
        ({"name": "news", "near_duplicates": "kept"}, "near_duplicates: 'kept' is not accepted; should be 'remove' or"),
        ({"name": "a/b", "path": "x.jsonl"}, "name: 'a/b' is not accepted.*such as a_b"),
        ({"path": 5}, "path: 5 is not accepted"),
        ({"path": "a\0b.txt"}, "path: .* is not accepted"),
        (5, "5 is not accepted; should be a name, a path, or a mapping"),
        ("", "'' is not accepted"),
        (["news"], "is not accepted; should be a name, a path, or a mapping"),
    ],
)
def test_entries_that_mean_nothing_are_refused_with_their_key(key: str, entry: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}.*{named}") as caught:
        experiment_on([entry]) if key == "datasets" else experiment_on(["news"], also_on=[entry])
    assert "\n" not in str(caught.value)


def test_entries_survive_being_written_and_read(forms: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        "news",
        forms,
        {"path": forms, "near_duplicates": "keep"},
        {"name": "medical", "near_duplicates": "keep"},
    ]
    experiment = experiment_on(entries, also_on=entries)
    assert build_experiment(yaml.safe_load(experiment.to_yaml())) == experiment
    assert experiment_on("news", also_on="medical").evaluation.also_on == ("medical",)
    monkeypatch.chdir(Path(forms).parent)
    for entry in (*experiment.datasets, "forms.jsonl"):
        kept = write_reference(entry)
        again = parts_of(read_reference(str(entry) if kept is None else kept))
        assert prepared_folder(find_corpus(entry), None) == prepared_folder(find_corpus(again), None)
        assert again.path in (None, forms)
    assert write_reference("news") is None
    assert write_reference("forms.jsonl") == forms


def test_what_is_scored_of_a_file_and_of_a_corpus(forms: str, cache: Path) -> None:
    whole = read_scored_text(forms)
    assert (whole.split, whole.revision, len(whole.drawn.pieces)) == (WHOLE_FILE, None, 300)
    stories = load_corpus("stories", max_train_bytes=None)
    for split in ("train", "validation", "test"):
        assert read_scored_text("stories", split=split).drawn == DrawnText.whole(stories.splits[split])
    chosen = read_scored_text("stories", max_bytes=5000)
    assert (chosen.split, chosen.revision) == ("validation", stories.revision)
    assert 0 < sum(piece.num_bytes for piece in chosen.drawn.pieces) <= 5000
    kept = read_scored_text({"path": forms, "near_duplicates": "keep"}, split="test")
    assert 0 < len(kept.drawn.hashes) < 60


def test_texts_that_do_not_exist_are_refused_with_near_matches(forms: str) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'news'"):
        read_scored_text("nwes")
    with pytest.raises(InputError, match=r"'dev'.*accepted: train, validation, test"):
        read_scored_text("stories", split="dev")
    with pytest.raises(DataError, match=r"no such file. Did you mean 'forms\.jsonl'"):
        read_scored_text(forms.replace("forms", "form"))
    with pytest.raises(ConfigError, match="data"):
        read_scored_text({"nam": "news"})
    with pytest.raises(InputError, match="max_bytes"):
        read_scored_text("stories", max_bytes=0)
