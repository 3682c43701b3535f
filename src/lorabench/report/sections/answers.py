"""What the answers of base and adapter are worth, and some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorabench.analysis.facts import AnswersFinding
from lorabench.core.errors import DiskError
from lorabench.core.formatting import figure_and_span
from lorabench.report.markdown import escape, table
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart

HEADINGS = ("configuration", "corpus", "split", "metric", "questions", "base", "adapted", "gain", "remarks")
NUM_SHOWN = 3
_INTRODUCTION = (
    "Base and adapter complete the same prompts, greedily. Each figure is a mean over questions with its 95 % "
    "interval; the gain is paired by question, and higher is better. Nothing was chosen by these figures, "
    "and their intervals are not corrected for their number."
)
_PAGE = """
<h2>Answers</h2>
<p class="lead">{{ introduction }}</p>
{{ scrolling("answers") }}<table>
<thead><tr>{% for heading in headings %}<th>{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% for corpus, label, items in examples %}<details>
  <summary>Answers to <bdi>{{ corpus }}</bdi> · <bdi>{{ label }}</bdi></summary>
  <div class="stack">{% for item in items %}<dl class="sample">
    <div><dt>prompt</dt><dd>{{ item.prompt }}</dd></div>
    <div><dt>the corpus answers</dt><dd>{{ item.reference }}</dd></div>
    <div><dt>the base answers</dt><dd>{{ item.base_answer.strip() }}</dd></div>
    <div><dt>the adapter answers</dt><dd>{{ item.answer.strip() }}</dd></div></dl>{% endfor %}</div></details>
{% endfor %}
"""


def _rows(report: Report) -> list[tuple[str, ...]]:
    findings = report.findings
    return [
        (
            (candidate := findings.candidate(found.candidate)).label,
            candidate.corpus,
            found.split,
            found.metric,
            f"{found.adapted.num_documents:,}",
            figure_and_span(found.base),
            figure_and_span(found.adapted),
            figure_and_span(found.gain, is_signed=True),
            _remarks(found),
        )
        for found in findings.answers
    ]


def _remarks(found: AnswersFinding) -> str:
    """What a reader of the figures should know."""
    remarks = []
    if found.base_num_cut or found.num_cut:
        remarks.append(f"cut at the most tokens: {found.base_num_cut} of the base, {found.num_cut} of the adapter")
    if found.num_left_out:
        remarks.append(f"{found.num_left_out} left out: their prompts leave no room in the context")
    if found.split == "test" and found.num_times > 1:
        remarks.append(f"test was answered {found.num_times} times")
    if found.gain.num_seeds > 1:
        remarks.append(f"mean over {found.gain.num_seeds} seeds")
    return "; ".join(remarks)


def _examples(report: Report) -> list[tuple[str, str, Sequence[Mapping[str, str]]]]:
    """Of the lowest configuration of each corpus: the first answers to validation."""
    by_id = {record.run_id: record for record in report.records}
    shown: list[tuple[str, str, Sequence[Mapping[str, str]]]] = []
    for corpus in report.findings.corpora:
        if corpus.best.lowest is None:
            continue
        candidate = report.findings.candidate(corpus.best.lowest)
        record = by_id.get(candidate.run_ids[0]) if candidate.run_ids else None
        answers = None if record is None else record.answers_of("validation")
        if record is None or answers is None:
            continue
        try:
            shown.append((corpus.label, candidate.label, report.store.answers(record, answers).texts[:NUM_SHOWN]))
        except DiskError:
            continue  # said among the problems
    return shown


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    rows = _rows(report)
    if not rows:
        return None
    return {"introduction": _INTRODUCTION, "headings": HEADINGS, "rows": rows, "examples": _examples(report)}


def _summary(report: Report, reference: References) -> Sequence[str]:
    rows = _rows(report)
    if not rows:
        return ()
    cells = [(*map(escape, row[:4]), *row[4:8], escape(row[8])) for row in rows]
    return (Detail(f"{_INTRODUCTION}\n\n{table(HEADINGS, cells, numbers_from=4)}"), *_headlines(report))


def _headlines(report: Report) -> list[str]:
    """The gain on validation of the lowest configuration of each corpus, by the first metric."""
    sentences: list[str] = []
    for corpus in report.findings.corpora:
        found = [item for item in report.findings.answers if item.candidate == corpus.best.lowest]
        sentences += [
            f"Answers to {escape(corpus.label)} ({item.split}), {escape(item.metric)}: base "
            f"{figure_and_span(item.base)}, adapted {figure_and_span(item.adapted)}, gain "
            f"{figure_and_span(item.gain, is_signed=True)}."
            for item in found
            if item.metric == found[0].metric
        ]
    return sentences


SECTION = Section("answers", 980, page=PagePart(_PAGE, "Answers", _values), summary=SummaryPart(Chapter.BEST, _summary))
