"""What is read first: what to take, which model, the best per corpus, and what is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorabench.analysis.findings import Findings
from lorabench.core.formatting import shorten
from lorabench.report.headline import MAX_CORPORA, MAX_MODELS, MAX_SENTENCES, Headline, headline_of
from lorabench.report.markdown import escape, prose, table, wrapped
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, PagePart, References, Report, Section, SummaryPart

SCREEN_LINES = 40
"""Of the summary that hold what is read first."""
_PAGE = """
{% for experiment in overview.experiments if experiment.question %}{% if loop.first %}
<p class="lead"><bdi>{{ experiment.question }}</bdi></p>{% endif %}{% endfor %}
<div><p class="eyebrow"><span>Recommendation</span> {{ standing(first.standing) }}</p>
<h2 class="verdict"><bdi>{{ first.verdict }}</bdi></h2></div>
{{ some(first.reasons) }}
<div class="pair wider">
<div class="stack"><h3>Base models</h3>
{% if first.models %}{{ scrolling("base models, in short") }}<table>
  <thead><tr><th scope="col">model</th><th scope="col" class="n">bits/byte</th>
    <th scope="col" class="n">95 %</th></tr></thead>
  <tbody>{% for item in first.models[:max_models] %}<tr>
    <th scope="row"><bdi>{{ item.model }}</bdi> {{ standing(item.standing) if item.standing.words }}</th>
    <td class="n">{{ item.figure }}</td><td class="n"><span class="range">{{ item.span }}</span></td></tr>{% endfor %}
  </tbody></table></div>{% endif %}
<p class="note"><bdi>{{ first.model_claims | join(". ") }}.</bdi></p></div>
{% if first.corpora %}<div class="stack"><h3>Best per corpus</h3>
{{ scrolling("best per corpus, in short") }}<table>
  <thead><tr><th scope="col">corpus</th><th scope="col">take</th><th scope="col" class="n">bits/byte</th>
    <th scope="col" class="n">gain</th><th scope="col" class="n">on test</th></tr></thead>
  <tbody>{% for item in first.corpora[:max_corpora] %}<tr>
    <th scope="row"><bdi>{{ item.corpus }}</bdi></th>
    <td><bdi>{{ item.choice }}</bdi><br><small>{{ item.standing.words }}</small></td>
    <td class="n">{{ item.figure }}</td><td class="n">{{ item.gain }}</td><td class="n">{{ item.test }}</td>
  </tr>{% endfor %}</tbody></table></div>
{% if first.corpora | length > max_corpora %}<p class="note">The others stand below.</p>{% endif %}
{% for sentence in first.settings[:max_sentences] %}<p class="note">{{ sentence }}.</p>{% endfor %}</div>{% endif %}
</div>
<div class="pair">
{% if first.unknown %}<div class="stack"><h3>What these runs cannot tell</h3>{{ some(first.unknown) }}</div>{% endif %}
{% if first.steps %}<div class="stack"><h3>What to do next</h3>{{ some(first.steps) }}</div>{% endif %}
</div>
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    return {
        "overview": report.findings.overview,
        "first": headline_of(report.findings),
        "max_models": MAX_MODELS,
        "max_corpora": MAX_CORPORA,
    }


def _summary(report: Report, reference: References) -> list[str]:
    """With as many sentences of each kind as leave it within its lines."""
    for most in range(MAX_SENTENCES, -1, -1):
        blocks = _screen(headline_of(report.findings), report.findings, most)
        if sum(block.count("\n") + 2 for block in blocks) <= SCREEN_LINES - 2:
            break
    return blocks


def _screen(first: Headline, findings: Findings, most: int) -> list[str]:
    ending = f" ({first.standing.words})" if first.reasons else ""
    blocks = ["\n".join([wrapped(f"**{escape(first.verdict)}**{ending}."), *_bullets(first.reasons, most)])]
    blocks += [wrapped(f"**Base models:** {'. '.join(map(escape, first.model_claims))}.")]
    if first.models:
        rows = [[escape(shorten(item.model, 40)), item.figure, item.span, item.standing.words] for item in first.models]
        blocks.append(table(["model", "mean bits per byte", "95 % interval", ""], rows[:MAX_MODELS]))
    if first.corpora:
        lines = [
            [
                escape(shorten(item.corpus, 24)),
                escape(shorten(item.choice, first.choice_length)),
                item.figure,
                item.gain,
                item.test,
                item.standing.words,
            ]
            for item in first.corpora[:MAX_CORPORA]
        ]
        num = len(first.corpora)
        title = "best on" if num <= MAX_CORPORA else f"best on ({MAX_CORPORA} of {num})"
        blocks.append(table([title, "take", "bits per byte", "gain", "on test", ""], lines, 2))
    if first.settings:
        blocks.append(wrapped(f"**Settings:** {'. '.join(map(escape, first.settings[: most + 1]))}."))
    for title, sentences in (("Not known", first.unknown), ("Next", first.steps)):
        if sentences:
            blocks.append("\n".join([f"**{title}:**", *_bullets(sentences, max(1, most))]))
    return blocks


def _bullets(sentences: Sequence[str], most: int) -> list[str]:
    return [wrapped(f"{prose(sentence)}.", "- ") for sentence in sentences[:most]]


SECTION = Section(
    "recommendation",
    100,
    page=PagePart(_PAGE, "Recommendation", _values),
    summary=SummaryPart(Chapter.TOP, _summary),
)
