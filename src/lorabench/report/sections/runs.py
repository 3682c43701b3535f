"""All runs: a table to search, sort and filter on the page, and one for a paper in LaTeX.

The page's script is given every run with all its figures, small enough for 2,000 of them: text that comes up again and
again (names, prompts, the base model's continuations) is written once and referred to by its number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorabench.analysis.statistics import Interval
from lorabench.core.formatting import alike
from lorabench.records.column import Column, Form
from lorabench.records.columns import CHANGE, COLUMNS, SETTINGS
from lorabench.records.measured_columns import change_elsewhere
from lorabench.records.schema import RunRecord
from lorabench.report.curves import run_names
from lorabench.report.latex import LATEX_NAME, latex_text
from lorabench.report.page_data import short
from lorabench.report.picture import Picture
from lorabench.report.section import TEMPLATES, PagePart, Report, Section

MAX_TABULAR_ROWS = 45
_LATEX_COLUMNS = tuple(
    COLUMNS[key]
    for key in (
        *("dataset", "model", "method", "rank", "learning_rate", "seed"),
        *("base_val_bits_per_byte", "val_bits_per_byte", "test_bits_per_byte"),
        *("tokens_per_second", "peak_memory_mb", "adapter_mb"),
    )
)
_FORMATS = {Form.COUNT: ".0f", Form.NUMBER: "g"}
MAX_SAMPLES_PER_RUN = 3
MAX_SAMPLE_CHARACTERS = 600


_FIRST = (
    *("run_id", "status", "model", "dataset", "method", "rank", "learning_rate", "seed", "val_bits_per_byte", "gain"),
    *("test_bits_per_byte", "tokens_per_second", "peak_memory_mb", "adapter_mb", "train_seconds", "alpha", "dropout"),
    *("target_modules", "precision", "quantization", "batch_size", "context_length", "epochs", "train_bytes"),
    *("train_tokens", "steps", "model_parameters", "trainable_parameters", "base_val_bits_per_byte"),
    *("base_test_bits_per_byte", "val_loss", "val_perplexity", "val_word_perplexity", "test_perplexity"),
    *("num_test_scorings", "device_name", "execution_path", "attempt", "experiment", "started_at", "finished_at"),
)
"""In this order; then every setting that is not among them."""
_KEPT = {"run_id", "val_bits_per_byte", "gain"}
"""Shown however narrow the window is."""
_KEPT_WHERE_THEY_DIFFER = {"model", "dataset", "method", "rank", "learning_rate"}
_SHOWN = {"test_bits_per_byte", "tokens_per_second", "peak_memory_mb"}
"""Where there is room."""
_SHOWN_WHERE_THEY_DIFFER = {"status", "steps", "device_name", "experiment", *(setting.key for setting in SETTINGS)}
_PAGE = """
<h2>All runs</h2>
<p class="lead">By corpus, the lowest first, then what was not trained to its end, until a
 column head is chosen; a run's number opens its details.</p>
<div class="tools">
  <label for="runs-search">Search<input type="search" id="runs-search" autocomplete="off"
    placeholder="words, all of them"></label>
  <span id="runs-filters" class="tools"></span>
</div>
<details class="screen"><summary>Choose columns <span class="muted" id="runs-hidden"></span></summary>
  <fieldset class="choice" id="runs-columns"><legend class="unseen">Columns shown</legend></fieldset></details>
{{ scrolling("all runs") }}<table id="runs-table">
  <caption class="unseen">All runs; column heads sort</caption><thead></thead><tbody></tbody></table></div>
<div class="pager">
  <button type="button" id="runs-previous">Previous</button><button type="button" id="runs-next">Next</button>
  <label>Rows <select id="runs-size">
    <option>25</option><option>50</option><option>100</option><option value="0">all</option></select></label>
  <span id="runs-status" role="status"></span>
</div>
<dialog id="run-dialog" aria-labelledby="run-title">
  <header><div><h2 id="run-title"></h2><code id="run-id"></code></div>
    <button type="button" id="run-close">Close</button></header>
  <div class="stack"><button type="button" id="run-curve">Draw its curve</button>
    <div id="run-body" class="stack"></div></div>
</dialog>
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    return {} if report.findings.overview.num_runs else None


def _data(report: Report) -> Mapping[str, object]:
    return {"runs-data": runs_payload(report.ordered)}


def _elsewhere(dataset: str) -> Column:
    """The change against the base on another corpus."""
    return Column(
        f"elsewhere:{dataset}",
        f"on {dataset}",
        change_elsewhere(dataset),
        Form.PERCENT,
        unit="change of bits/byte against the base there",
        is_better="lower",
    )


class _Texts:
    """Every text once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, text: str | None) -> int | None:
        return None if text is None else self.numbers.setdefault(text, len(self.numbers))


def runs_payload(records: Sequence[RunRecord]) -> dict[str, Any]:
    """All runs by column, with what a run's own view shows: reason, notes, samples."""
    texts = _Texts()
    columns = []
    elsewhere = [_elsewhere(name) for name in dict.fromkeys(drift.dataset for item in records for drift in item.drift)]
    known = COLUMNS | {column.key: column for column in (CHANGE, *elsewhere)}
    place = _FIRST.index("gain") + 1
    first = (*_FIRST[:place], *(column.key for column in elsewhere), *_FIRST[place:])
    for key in dict.fromkeys((*first, *(setting.key for setting in SETTINGS))):
        column = known[key]
        values: list[Any] = [column.read(record) for record in records]
        varies = key in _SHOWN_WHERE_THEY_DIFFER and len(set(values)) > 1
        if key == "alpha":
            varies = len({record.spec.adapter.alpha for record in records}) > 1
        is_kept = key in _KEPT or (key in _KEPT_WHERE_THEY_DIFFER and len(set(values)) > 1)
        is_text = column.form is Form.TEXT
        columns.append(
            {
                "key": key,
                "title": column.title,
                "form": column.form,
                "about": "; ".join(
                    part for part in (column.unit, column.is_better and f"{column.is_better} is better") if part
                ),
                "shown": is_kept or key in _SHOWN or varies or column in elsewhere,
                "kept": is_kept,
                "values": [texts.number(value) if is_text else short(value) for value in values],
            }
        )
    return {
        "columns": columns,
        "names": [texts.number(name) for name in run_names(records)],
        "reasons": [texts.number(record.status_reason) for record in records],
        "notes": [[texts.number(note) for note in record.notes] for record in records],
        "samples": [_samples(record, texts) for record in records],
        "texts": list(texts.numbers),
    }


def _samples(record: RunRecord, texts: _Texts) -> list[list[int | None]]:
    return [
        [texts.number(_cut(text)) for text in (sample.prompt, sample.base_continuation, sample.continuation)]
        for sample in record.samples[:MAX_SAMPLES_PER_RUN]
    ]


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= MAX_SAMPLE_CHARACTERS:
        return text
    return text[:MAX_SAMPLE_CHARACTERS] + "…"


def _latex(report: Report) -> str:
    candidates = (item for corpus in report.findings.corpora for item in corpus.candidates)
    return latex_table(report.ordered, {run: item.bits_per_byte for item in candidates for run in item.run_ids})


def latex_table(records: Sequence[RunRecord], intervals: Mapping[str, Interval] | None = None) -> str:
    """A row for every run in the order given; one without a validation figure shows its state instead.

    Bits per byte have the digits that `intervals`, by run id, support; the CSV has them all.

    Plain `tabular`, so that it needs no package; more rows than fit on a page need `longtable`, which every LaTeX has.
    """
    alignment = "".join("l" if column.form is Form.TEXT else "r" for column in _LATEX_COLUMNS)
    head = " & ".join(column.short_title for column in _LATEX_COLUMNS) + r" \\ \hline"
    intervals = intervals or {}
    lines = [" & ".join(_latex_cells(row, intervals.get(row.run_id))) + r" \\" for row in records]
    name = "tabular" if len(records) <= MAX_TABULAR_ROWS else "longtable"
    note = "" if name == "tabular" else r", with \usepackage{longtable} in the preamble"
    comments = (
        f"% Made by lorabench from the records; include it with \\input{{{LATEX_NAME}}}{note}.",
        "% Base, validation and test are in bits per byte.",
    )
    repeated = r" \endhead" if name == "longtable" else ""
    begin, end = f"\\begin{{{name}}}{{{alignment}}} \\hline", f"\\hline \\end{{{name}}}"
    return "\n".join((*comments, begin, head + repeated, *lines, end, ""))


def _latex_cells(record: RunRecord, interval: Interval | None) -> list[str]:
    cells = []
    for column in _LATEX_COLUMNS:
        value = column.read(record)
        if column.key == "val_bits_per_byte" and value is None:
            cells.append(latex_text(record.status.value.replace("_", " ")))
        elif value is None:
            cells.append("--")
        elif isinstance(value, str):
            cells.append(latex_text(value))
        elif column.form is Form.BITS:
            cells.append(latex_text(alike(float(value), interval)))
        else:
            form = _FORMATS[column.form] if column.decimals is None else f".{column.decimals}f"
            cells.append(latex_text(format(value, form)))
    return cells


SECTION = Section(
    "runs",
    1100,
    page=PagePart(_PAGE, "All runs", _values, _data, (TEMPLATES / "table.js").read_text(encoding="utf-8")),
    latex=_latex,
)
