"""Reference files: what is shipped, what is refused, and that they change nothing that is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorabench.core.cards import parse_devices_elsewhere
from lorabench.core.device import choose_device
from lorabench.core.errors import ConfigError
from lorabench.experiment.plan import make_plan
from lorabench.experiment.reference_results import FIGURES, load_reference
from lorabench.experiment.schema import build_experiment, load_experiment
from lorabench.experiment.shipped import find_shipped
from lorabench.records.asked import read_asked, write_asked
from lorabench.records.columns import COLUMNS
from lorabench.runs.around import asked_by

CELLS = {
    ("gemma-2b", 8, "tinystories"): (12.4, 3400),
    ("gemma-2b", 8, "writingprompts"): (14.2, None),
    ("gpt2", 16, "wikitext-103"): (24.3, None),
    ("gpt2", 16, "codeparrot"): (19.5, None),
    ("gpt2", 16, "ag-news"): (15.2, 1300),
    ("pythia-410m", 32, "openwebtext"): (18.7, 2100),
    ("pythia-410m", 32, "arxiv-abstracts"): (22.8, None),
    ("pythia-410m", 32, "pubmedqa"): (20.3, None),
    ("pythia-410m", 32, "pile-10k"): (16.5, None),
}
"""Of the published summary: perplexity on validation, tokens/s."""
OWN = """
title: Ours of last year
results:
  - {model: gpt2-mini, dataset: news, rank: 4, val_perplexity: 31.5}
"""
EXPERIMENT = {"name": "n", "models": ["gpt2-mini"], "datasets": ["news"], "training": {"context_length": 128}}


def test_the_published_table_is_shipped() -> None:
    results = load_reference("published").results
    found = {
        (one.model, one.rank, one.dataset): (one.val_perplexity, one.tokens_per_second)
        for one in results
        if one.method == "lora"
    }
    assert found == CELLS
    assert len(results) == len(CELLS)


def test_its_cells_are_planned_at_its_scale(cache: Path) -> None:
    plan = make_plan(load_experiment(find_shipped("published")), choose_device("cpu"))
    runs = {(run.spec.model, run.spec.adapter.rank, run.spec.dataset): run for run in plan.runs}
    assert set(runs) == set(CELLS)
    assert len(plan.runs) == len(plan.groups) == len(CELLS)
    assert {run.spec.training.batch_size for run in plan.runs} == {32}
    assert {run.spec.training.epochs for run in plan.runs} <= {2, 3}
    too_small = {"ag-news": 2_199, "pubmedqa": 4_578, "pile-10k": 2_163}
    comment = find_shipped("published").read_text(encoding="utf-8")
    for (_, _, corpus), run in runs.items():
        if corpus in too_small:
            assert run.steps == too_small[corpus]
            assert f"{run.steps:,}" in comment
            assert run.train_bytes < run.spec.training.train_bytes, "all of its text"
        else:
            assert 20_000 <= run.steps <= 42_000


def test_it_fits_the_card_that_its_comment_names(cache: Path) -> None:
    _, card = parse_devices_elsewhere("1xT4")
    plan = make_plan(load_experiment(find_shipped("published")), card.device)
    assert max(run.estimated_memory_bytes for run in plan.runs) < 16e9 <= card.memory_bytes
    assert "a GPU with 16 GB" in find_shipped("published").read_text(encoding="utf-8")


def test_the_short_form_has_the_same_cells_and_fits_a_day(cache: Path) -> None:
    count, card = parse_devices_elsewhere("1xRTX4090")
    plan = make_plan(load_experiment(find_shipped("published_short")), card.device)
    assert count == 1
    assert {(run.spec.model, run.spec.adapter.rank, run.spec.dataset) for run in plan.runs} == set(CELLS)
    assert {run.spec.training.train_bytes for run in plan.runs} == {2_000_000}
    assert len(plan.runs) == 9 * 3 * 3
    assert plan.estimated_seconds < 24 * 3600


def test_figures_are_called_as_in_the_results_table() -> None:
    assert set(FIGURES) <= set(COLUMNS)


def test_an_experiment_brings_its_own(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "ours.yaml").write_text(OWN, encoding="utf-8")
    path = tmp_path / "experiment.yaml"
    path.write_text(build_experiment(EXPERIMENT).to_yaml().replace("reference: null", "reference: ours.yaml"))
    experiment = load_experiment(path)
    assert experiment.reference is not None
    assert [one.val_perplexity for one in experiment.reference.results] == [31.5]
    path.write_text(experiment.to_yaml(), encoding="utf-8")
    assert load_experiment(path) == experiment
    plan = make_plan(experiment)
    assert [run.run_id for run in plan.runs] == [run.run_id for run in make_plan(build_experiment(EXPERIMENT)).runs]
    write_asked(tmp_path, asked_by(plan))
    assert [one.reference for one in read_asked(tmp_path)[0]] == [experiment.reference]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", r"\[1\] is not accepted; a mapping with title and results is expected"),
        ("title: x", "results: the key is missing"),
        ("title: x\nresults: []", "results: .* is not accepted; list should have at least 1 item, not 0"),
        ("title: x\nresults: {m: 1}", "results: .* is not accepted; should be a list"),
        ("title: x\nresults: [gpt2]", r"results\[0\]: 'gpt2' is not accepted; should be a mapping$"),
        (
            "title: x\nresults: [{model: m, dataset: d, rank: true, val_perplexity: 2}]",
            r"results\[0\].rank: True is not accepted; true and false mean nothing here",
        ),
        (
            "title: x\nresults: [{model: m, dataset: d, method: full, rank: 8, val_perplexity: 2}]",
            r"results\[0\].rank: full has no rank; leave it out",
        ),
        ("title: x\nresult: 1", "result: unknown key. Did you mean 'results'"),
        (
            "title: x\nresults: [{model: m, dataset: d}]",
            r"results\[0\]: it has no figure; give at least one of val_perp",
        ),
        (
            "title: x\nresults: [{model: m, dataset: d, val_perplexity: -1}]",
            r"results\[0\].val_perplexity: -1 is not accepted; should be greater than 0",
        ),
        (
            "title: x\nresults: [{model: m, dataset: d, val_perplexity: .inf}]",
            r"results\[0\].val_perplexity: inf is not accepted; should be a finite number",
        ),
        ("title: x\nresults: [{model: m, dataset: d, perplexity: 1}]", r"results\[0\].perplexity: unknown key"),
        (
            "title: x\nresults: [{model: m, dataset: d, method: lorra, val_perplexity: 1}]",
            r"results\[0\].method: 'lorra' is not accepted.* Did you mean 'lora'",
        ),
        (
            "title: x\nresults: [{model: m, dataset: d, val_perplexity: 1}, {model: m, dataset: d, val_perplexity: 2}]",
            r"results\[1\]: it is of the same model, dataset, method and rank as results\[0\]",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_file_and_key(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "reference.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{path}: {sentence}"):
        load_reference(str(path))


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(ConfigError, match=r"/dev/zero: the file is larger than 65536 bytes"):
        load_reference("/dev/zero")


def test_a_name_that_is_not_there_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"publishd: there is no such reference file.* shipped: published"):
        load_reference("publishd")
    with pytest.raises(ConfigError, match=r"reference: results: the key is missing"):
        build_experiment({**EXPERIMENT, "reference": {"title": "x"}})
    with pytest.raises(ConfigError, match=r"reference: 3 is not accepted"):
        build_experiment({**EXPERIMENT, "reference": 3})
    (tmp_path / "experiment.yaml").write_text("name: n\nmodels: gpt2-mini\ndatasets: news\nreference: no.yaml\n")
    with pytest.raises(ConfigError, match=r"reference: no.yaml: there is no such file"):
        load_experiment(tmp_path / "experiment.yaml")
