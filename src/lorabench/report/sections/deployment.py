"""In which form to ship a run: what each form loses, what it costs, and what to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorabench.analysis.deployment import FormStanding
from lorabench.core.formatting import NONE, bits, number, size, with_interval
from lorabench.records.deployment import DeploymentRecord
from lorabench.report.deployment_table import DeployedRun
from lorabench.report.markdown import escape, prose, table
from lorabench.report.picture import Kind, Panel, Picture, Point, Series
from lorabench.report.section import Chapter, PagePart, References, Report, Section, SummaryPart

HEADINGS = (
    *("form", "disk", "bits/byte", "against the adapter", "gain kept", "top-1", "memory", "first token, 128"),
    *("tokens/s", "tokens/s, 8 at once", "J/token"),
)
ANSWER_HEADINGS = ("form", "split", "metric", "questions", "adapter", "form's answers", "difference, 95 %")
_INTRODUCTION = (
    "Each form was scored on the run's own validation text and timed in fresh processes, in alternating rounds; "
    "figures of speed are medians, beside writing with the lowest and the highest round. Divergence and agreement "
    "order no forms that are near the original."
)
_PAGE = """
<h2>Which form to ship</h2>
{% for run in runs %}
<h3>{{ run.run_id }}</h3>
<p class="lead">{{ run.verdict }}.</p>
<ul>{% for reason in run.reasons %}<li>{{ reason }}.</li>{% endfor %}</ul>
{{ scrolling("forms of " ~ run.run_id) }}<table class="compact">
<thead><tr>{% for heading in headings %}<th scope="col"{{ ' class=n' if loop.index0 }}>{{ heading }}</th>
{% endfor %}</tr></thead>
<tbody>{% for row in run.rows %}<tr><th scope="row">{{ row[0] }}</th>
{% for cell in row[1:] %}<td class="n">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% if run.answers %}
{{ scrolling("answers of the forms of " ~ run.run_id) }}<table>
<thead><tr>{% for heading in answer_headings %}<th>{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in run.answers %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
{% for failure in run.failures %}<p>{{ failure }}.</p>{% endfor %}
{% endfor %}
<p>{{ introduction }}</p>
{% if picture %}{{ figure(picture, "wide") }}{% endif %}
"""


def cells(standing: FormStanding) -> tuple[str, ...]:
    """A form's row under `HEADINGS`."""
    record, kept = standing.record, standing.gain_kept
    first = record.median("ttft_seconds_128")
    return (
        record.form,
        size(record.disk_bytes),
        bits(record.validation.bits_per_byte if record.validation else None),
        "{} ({})".format(*with_interval(standing.difference, is_signed=True)),
        NONE if kept is None else f"{kept.estimate * 100:.0f} %" + _span(kept.low, kept.high),
        NONE if record.divergence is None else f"{record.divergence.top1_agreement * 100:.1f} %",
        size(record.peak_memory),
        NONE if first is None else f"{first * 1e3:,.0f} ms",
        _with_spread(record, "decode_tokens_per_second"),
        number(record.median("decode_tokens_per_second_8"), 3),
        number(record.median("decode_joules_per_token"), 3),
    )


def _with_spread(record: DeploymentRecord, name: str) -> str:
    """The median over rounds, and between what it lay: `81 (75 to 88)`."""
    low, high = record.spread(name)
    middle = number(record.median(name), 3)
    return middle if low == high else f"{middle} ({number(low, 2)} to {number(high, 2)})"


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low * 100:.0f} to {high * 100:.0f})"


def answer_rows(deployed: DeployedRun) -> list[tuple[str, ...]]:
    """What forms answered, under `ANSWER_HEADINGS`; none where the run was not asked to answer."""
    return [
        (
            form,
            answer.split,
            answer.metric,
            f"{answer.num_questions:,}",
            bits(answer.adapter),
            bits(answer.form),
            "{} ({})".format(*with_interval(answer.difference, is_signed=True)),
        )
        for form, answers in deployed.answers.items()
        for answer in answers
    ]


def failures(records: Sequence[DeploymentRecord]) -> list[str]:
    """A sentence on each form that could not be made or measured."""
    return [
        f"{record.form}: {record.status.value.replace('_', ' ')}: {(record.status_reason or '').rstrip('.')}"
        for record in records
        if record.status_reason
    ]


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    if not report.deployed:
        return None
    runs = [
        {
            "run_id": deployed.run.run_id,
            "verdict": deployed.choice.verdict,
            "reasons": deployed.choice.reasons,
            "rows": [cells(standing) for standing in deployed.choice.standings],
            "answers": answer_rows(deployed),
            "failures": failures(deployed.records),
        }
        for deployed in report.deployed
    ]
    return {
        "introduction": _INTRODUCTION,
        "headings": HEADINGS,
        "answer_headings": ANSWER_HEADINGS,
        "runs": runs,
        "picture": picture,
    }


def _summary(report: Report, reference: References) -> Sequence[str]:
    blocks = []
    for deployed in report.deployed:
        choice = deployed.choice
        blocks.append(f"**Which form of {escape(deployed.run.run_id)} to ship.** {prose(choice.verdict)}.")
        blocks += [f"- {prose(reason)}." for reason in (*choice.reasons, *failures(deployed.records))]
        if choice.standings:
            blocks.append(table(HEADINGS, [cells(standing) for standing in choice.standings]))
        if rows := answer_rows(deployed):
            blocks.append(table(ANSWER_HEADINGS, [tuple(map(escape, row)) for row in rows]))
    return blocks


def _picture(report: Report) -> Picture:
    """Bits per byte against size, a panel a run; smaller and lower is better."""
    forms = [standing.record.form for deployed in report.deployed for standing in deployed.choice.standings]
    colours = {form: place for place, form in enumerate(dict.fromkeys(forms))}
    panels = tuple(_panel(deployed, colours) for deployed in report.deployed if deployed.choice.standings)
    rows = tuple(
        (deployed.run.run_id, *cells(standing))
        for deployed in report.deployed
        for standing in deployed.choice.standings
    )
    return Picture("deployment", "Size and quality of the forms", panels, ("run", *HEADINGS), rows)


def _panel(deployed: DeployedRun, colours: Mapping[str, int]) -> Panel:
    adapter = deployed.run.validation
    level = adapter.bits_per_byte if adapter is not None else 0.0
    series = tuple(
        Series(
            standing.record.form,
            colours[standing.record.form],
            (
                Point(
                    (standing.record.disk_bytes or 0) / 1e6,
                    level + standing.difference.estimate,
                    _sum(level, standing.difference.low),
                    _sum(level, standing.difference.high),
                    cells(standing)[:5],
                ),
            ),
        )
        for standing in deployed.choice.standings
    )
    return Panel(
        deployed.run.run_id,
        "Bits per byte of each form with 95 % intervals, against its size; lower and further to the left is better",
        Kind.POINTS,
        "MB on disk",
        "validation bits per byte",
        series,
        is_log_x=True,
        finding=deployed.choice.verdict,
    )


def _sum(level: float, difference: float | None) -> float | None:
    return None if difference is None else level + difference


SECTION = Section(
    "deployment",
    985,
    page=PagePart(_PAGE, "Which form to ship", _values),
    summary=SummaryPart(Chapter.BEST, _summary, "Size and quality of the forms"),
    picture=_picture,
)
