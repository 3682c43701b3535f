"""What to take, how sure that is, and what limits it: the top of the page and of the summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lorabench.analysis.findings import Candidate, Findings, Recommendation
from lorabench.analysis.statistics import Interval
from lorabench.core.formatting import NONE, bits, count, relative_gain, signed_bits, size, span
from lorabench.report.markdown import escape
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, PagePart, References, Report, Section, SummaryPart

_PAGE = """
{% for experiment in overview.experiments if experiment.question %}{% if loop.index <= 3 %}
<p class="lead"><bdi>{{ experiment.question }}</bdi></p>{% endif %}{% endfor %}
{% if choice %}
<p class="eyebrow"><span>Recommendation
  {%- if choice.corpus %} for <bdi>{{ choice.corpus }}</bdi>
  {%- elif num_corpora > 1 %} over all corpora{% endif %}</span>
  {{ badge(choice.is_decided, choice.alternatives | length, choice.has_choice) }}</p>
<h2 class="verdict"><bdi>{{ choice.claim }}</bdi></h2>
{% if choice.facts %}<dl class="facts">
  {% for fact in choice.facts %}<div><dt>{{ fact.name }}</dt><dd>{{ fact.value }}
    {%- if fact.beside %}<small>{{ fact.beside }}</small>{% endif %}</dd></div>
  {% endfor %}
</dl>{% endif %}
{% if choice.has_choice and choice.alternatives and not choice.is_decided %}
<p class="note">Cannot be told from it, the smallest adapter first:
  <bdi>{{ choice.alternatives[:6] | join("; ") }}</bdi>
  {%- if choice.alternatives | length > 6 %} and {{ choice.alternatives | length - 6 }} more{% endif %}.</p>{% endif %}
{{ caveats(choice.caveats) }}
{% else %}
<p class="eyebrow"><span>Recommendation</span> {{ badge(false, 0, false) }}</p>
<h2 class="verdict">{{ "No run has a result yet" if overview.num_runs else "There are no runs yet" }}</h2>
{% endif %}
{% if cards %}
<h3>For each corpus</h3>
<div class="cards">{% for card in cards %}
  <div class="card">
    <h4 class="eyebrow"><bdi>{{ card.corpus }}</bdi></h4>
    <p class="figure">{{ card.figure }} <span class="range">{{ card.range }}</span></p>
    <p><bdi>{{ card.label }}</bdi></p>
    <p class="muted">{{ card.gain }}</p>
    {% if card.has_choice and card.is_decided %}<span class="badge decided">told apart</span>
    {%- else %}{{ badge(false, card.alternatives | length, card.has_choice) }}{% endif %}
  </div>{% endfor %}
</div>{% endif %}
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any]:
    findings = report.findings
    first = findings.overall or (findings.recommendations[0] if len(findings.recommendations) == 1 else None)
    has_cards = len(findings.corpora) > 1
    return {
        "overview": findings.overview,
        "num_corpora": len(findings.corpora),
        "choice": _choice(findings, first) if first else None,
        "cards": [_card(findings, item) for item in findings.recommendations] if has_cards else [],
    }


def _choice(findings: Findings, chosen: Recommendation) -> dict[str, Any]:
    candidates = [findings.candidate(key) for key in chosen.candidates]
    return {
        "corpus": chosen.corpus,
        "claim": chosen.claim,
        "has_choice": bool(candidates),
        "is_decided": chosen.is_decided,
        "alternatives": [findings.candidate(key).label for key in chosen.alternatives],
        "caveats": chosen.caveats,
        "facts": _facts(findings, chosen, candidates) if candidates else [],
    }


def _facts(findings: Findings, chosen: Recommendation, candidates: Sequence[Candidate]) -> list[dict[str, str]]:
    figure, gain = chosen.bits_per_byte, chosen.gain
    costs = [item.cost for item in candidates]
    facts = []
    if figure is not None:
        facts.append(("validation bits per byte", bits(figure.estimate), f"95 %: {span(figure)}"))
    if gain is not None:
        below = f"{bits(gain.estimate)} below the base ({span(gain)})"
        facts.append(("against the base", relative_gain(gain, figure), below))
    if len(candidates) == 1 and (reading := findings.test_of(candidates[0].key)) is not None and reading.bits_per_byte:
        facts.append(("on test", bits(reading.bits_per_byte.estimate), span(reading.bits_per_byte)))
    facts += [
        ("training speed", _range([cost.tokens_per_second for cost in costs], count), "tokens per second"),
        ("peak memory", _range([cost.peak_memory_bytes for cost in costs], size), "while training"),
        ("adapter", _range([cost.adapter_bytes for cost in costs], size), "on disk"),
    ]
    return [{"name": name, "value": value, "beside": beside} for name, value, beside in facts if value != NONE]


def _range(values: Sequence[float | None], write: Callable[[float], str]) -> str:
    """One figure, or the lowest and the highest where they differ as written."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return NONE
    low, high = write(known[0]), write(known[-1])
    return low if low == high else f"{low} to {high}"


def _card(findings: Findings, chosen: Recommendation) -> dict[str, Any]:
    candidate = findings.candidate(chosen.candidates[0]) if chosen.candidates else None
    return {
        "corpus": chosen.corpus or "all corpora",
        "label": candidate.label if candidate else chosen.claim,
        "figure": bits(chosen.bits_per_byte.estimate) if chosen.bits_per_byte else "",
        "range": span(chosen.bits_per_byte) if chosen.bits_per_byte else "",
        "gain": f"{relative_gain(chosen.gain, chosen.bits_per_byte)} against the base" if chosen.gain else "",
        "has_choice": candidate is not None,
        "is_decided": chosen.is_decided,
        "alternatives": chosen.alternatives,
    }


def _summary(report: Report, reference: References) -> list[str]:
    findings = report.findings
    choices = [item for item in (findings.overall, *findings.recommendations) if item is not None]
    if not choices:
        return ["Nothing can be recommended: no run has a result yet."]
    lines = []
    for choice in choices:
        references = ", ".join(reference(key) for key in choice.candidates)
        lines.append(f"- {escape(choice.claim)}{f' ({references})' if references else ''}.")
        lines += [f"  - {escape(sentence)}." for sentence in (*choice.caveats, *_test_sentences(findings, choice))]
    intro = (
        "Chosen on validation; lower bits per byte is better; intervals are 95 %. What test then said stands beside."
    )
    return [intro, "\n".join(lines)]


def _test_sentences(findings: Findings, choice: Recommendation) -> list[str]:
    found = []
    for key in choice.candidates if choice.corpus is not None else ():
        reading = findings.test_of(key)
        if reading is None or reading.bits_per_byte is None:
            found.append("Test has not been scored")
            continue
        gain = "" if reading.gain is None else f"; {_with_span(reading.gain)} below its base there"
        found.append(f"Test: {_with_span(reading.bits_per_byte)} bits per byte{gain}; gap {signed_bits(reading.gap)}")
        if reading.num_test_scorings > 1:
            found.append(f"Test was scored {reading.num_test_scorings} times, so it is less of a test")
    return found


def _with_span(interval: Interval) -> str:
    return f"{bits(interval.estimate)} ({span(interval)})"


SECTION = Section(
    "recommendation",
    100,
    page=PagePart(_PAGE, "Recommendation", _values),
    summary=SummaryPart(Chapter.TOP, _summary),
)
