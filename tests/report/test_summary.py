"""The summary and the whole report: seven parts, outside text stays text, any number of runs."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from lorabench.analysis.analyse import analyse
from lorabench.records.schema import Status
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report, findings_of
from lorabench.report.markdown import code_block, escape, table
from lorabench.report.section import Report
from lorabench.report.sections import SECTIONS
from lorabench.report.summary import render_summary
from tests.report.synthetic import SyntheticResults, Truth

PARTS = [
    "1. Overview",
    "2. Model hierarchy",
    "3. Best model per dataset",
    "4. LoRA configuration analysis",
    "5. Training efficiency",
    "6. How to reproduce",
    "7. Next steps",
]
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "a | b || c",
    "`code` ``` ~~~ fence",
    "[link](javascript:alert(1)) ![image](http://evil.example/x.png)",
    "https://evil.example and www.evil.example",
    "# heading",
    "1. list",
    "- list\n\n# new block\n| a | b |\n| --- | --- |",
    "**bold** _em_ ~~gone~~ \\ back\\|slash",
    "&lt;b&gt; &amp; <!-- comment",
    "right\u202eleft \x1b[2J \x00 null",
]


def tokens_of(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def inline_types(text: str) -> set[str]:
    return {child.type for token in tokens_of(text) for child in token.children or ()}


def shown(text: str) -> str:
    """What a reader sees of the inline parts."""
    parts = [child.content for token in tokens_of(text) for child in token.children or () if child.type == "text"]
    return "".join(parts)


def summary_of(results: SyntheticResults, **options: Any) -> str:
    """The summary and, after it, the tables beside it."""
    records = results.store.read_all()[0]
    report = Report(analyse(records, results.store), records, results.store, tuple(SECTIONS.all().values()))
    return "".join(render_summary(report, **options).values())


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_is_one_paragraph_of_plain_text(text: str) -> None:
    for value in (escape(text), f"cell {escape(text)}"):
        assert [token.type for token in tokens_of(value)] == ["paragraph_open", "inline", "paragraph_close"]
        assert inline_types(value) <= {"text"}
        assert "\x1b" not in value
        assert "\u202e" not in value
    rendered = MarkdownIt("commonmark").enable("table").render(table(["name", "n"], [[escape(text), "1"]]))
    assert rendered.count("<td") == 2
    assert re.findall(r"<(?!/?(?:table|thead|tbody|tr|th|td)\b)", rendered) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_a_command_cannot_leave_its_block(text: str) -> None:
    assert [token.type for token in tokens_of(code_block(text))] == ["fence"]


def test_the_seven_parts_come_in_order_and_every_number_has_its_runs(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_model={"b": 0.1}), also_on=("stories",))
    results.grid(models=["a", "b"], datasets=["news", "medical"], ranks=[8, 16], learning_rates=[1e-3, 3e-3])
    text = summary_of(results)
    summary = text.split("# The tables behind")[0]
    assert re.findall(r"^## (.*)$", summary, re.MULTILINE) == PARTS
    references = set(re.findall(r"\bc\d+\b", text.split("### The runs behind the figures")[0]))
    rows = re.findall(r"^\| (c\d+) \| .* \| (\S.*) \|$", text.split("### The runs behind the figures")[1], re.MULTILINE)
    named = dict(rows)
    assert references == set(named)
    known = set(results.store.run_ids())
    for runs in named.values():
        assert {run.replace("\\", "") for run in runs.split(", ")} <= known
    assert "lorabench run configs/experiments/synthetic.yaml" in text
    assert "12 exact duplicates, 7 near duplicates" in text
    assert "### Drift: trained on × scored on" in text
    assert "### By document length" in text
    assert "Best model over 2 corpora (on seed 0 only): a with" in text


def test_with_one_model_the_summary_names_no_best_model(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    results.grid()
    text = summary_of(results)
    assert "Only one model was tried (tiny), so there is no best model" in text
    assert "With one model there is no best model" in text
    assert "Only one learning rate was tried, so learning rates cannot be compared." in text
    assert "Best model for" not in text
    assert "Best model over" not in text


@pytest.mark.parametrize("name", HOSTILE[:5] + HOSTILE[8:10])
def test_hostile_names_stay_text(tmp_path: Path, name: str) -> None:
    results = SyntheticResults(tmp_path, Truth())
    results.grid(models=[name, "plain"], datasets=[name], ranks=[8, 16], question=name, experiment=name)
    results.grid(models=[name], datasets=[name], ranks=[32], status=Status.FAILED, status_reason=name)
    rendered = MarkdownIt("commonmark").enable("table").render(summary_of(results))
    tags = set(re.findall(r"</?([a-z][a-z0-9]*)", rendered))
    assert tags <= {
        "h1",
        "h2",
        "h3",
        "p",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "ul",
        "li",
        "strong",
        "pre",
        "code",
        "a",
    }
    assert set(re.findall(r"href=\"([^\"#]*)", rendered)) <= {"results_details.md", "results_summary.md"}
    assert "<!--" not in rendered
    for row in re.findall(r"<thead>.*?</tbody>", rendered, re.DOTALL):
        widths = {len(re.findall("<t[hd]", line)) for line in re.findall(r"<tr>.*?</tr>", row, re.DOTALL)}
        assert len(widths) == 1


def test_no_runs_make_a_summary_too(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    paths = build_report(RecordStore(tmp_path))
    text = (paths.results_dir / "results_summary.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == PARTS
    assert "**No run has a result yet**" in text


def test_only_failures_make_a_summary_too(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    results.grid(status=Status.OUT_OF_MEMORY, status_reason="memory ran out at a micro-batch of one row")
    paths = build_report(RecordStore(tmp_path), figures=False)
    text = (paths.results_dir / "results_summary.md").read_text(encoding="utf-8")
    assert "memory ran out at a micro-batch of one row" in text
    assert "2 out of memory" in text
    assert "Only one" not in text, "what has no result is not what was tried"


def test_a_report_holds_everything_and_embeds_only_what_is_there(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    results.grid(models=["a", "b"], ranks=[8, 16], seeds=[0, 1])
    bare = build_report(RecordStore(tmp_path), figures=False)
    assert "![" not in (bare.results_dir / "results_summary.md").read_text(encoding="utf-8")
    paths = build_report(RecordStore(tmp_path))
    names = {path.name for path in paths.written}
    assert {"benchmark_results.csv", "results_summary.md", "report.html", "results_table.tex"} <= names
    text = (paths.results_dir / "results_summary.md").read_text(encoding="utf-8")
    embedded = re.findall(r"!\[[^]]*\]\((figures/[^)]*)\)", text)
    assert embedded
    assert all((paths.results_dir / name).is_file() for name in embedded)


def test_a_damaged_record_is_told_and_the_rest_is_reported(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    records = results.grid(ranks=[8, 16, 32])
    (results.store.run_dir(records[0].run_id) / "record.json").write_text("{", encoding="utf-8")
    paths = build_report(RecordStore(tmp_path), figures=False)
    assert any(records[0].run_id in problem for problem in paths.problems)
    text = (paths.results_dir / "results_summary.md").read_text(encoding="utf-8")
    assert "### Records and files that could not be used" in text
    with (paths.results_dir / "benchmark_results.csv").open(encoding="utf-8") as lines:
        assert len(list(csv.DictReader(lines))) == 2


def test_ties_are_those_of_the_experiments_own_runs(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(by_rank={8: 0.1, 16: 0.0, 32: -0.1}, noise=0.002))
    records = results.grid(ranks=[8, 16, 32], seeds=[0, 1])
    own = [record for record in records if record.spec.adapter.rank < 32]
    best = {record.run_id for record in own if record.spec.adapter.rank == 16}
    assert findings_of(own, RecordStore(tmp_path)).ties == {"news": best}


def test_the_same_records_give_the_same_summary(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    results.grid(models=["a", "b"], seeds=[0, 1])
    assert summary_of(results) == summary_of(results)


def test_analysing_needs_neither_torch_nor_pandas() -> None:
    code = "import sys, lorabench.analysis.analyse, lorabench.report.page, lorabench.report.sections as sections; "
    code += "sections.SECTIONS.all(); "
    code += "print(sorted({'torch', 'pandas', 'scipy.stats', 'transformers', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
