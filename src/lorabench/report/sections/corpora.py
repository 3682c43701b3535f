"""What is best on each corpus, and what it cannot be distinguished from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorabench.analysis.comparisons import oriented
from lorabench.analysis.findings import Candidate, Comparison, CorpusFindings, Findings, Recommendation, Verdict
from lorabench.core.formatting import (
    NONE,
    alike,
    bits,
    documents,
    figure,
    figure_and_span,
    number,
    relative_gain,
    size,
    span,
)
from lorabench.report.headline import shown_on_test, tied_costs, trained_words
from lorabench.report.markdown import escape, table
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart
from lorabench.report.summary_tables import MAX_CANDIDATES

MAX_TIED = 6
_PAGE = """
<h2>Best per corpus</h2>
<p class="lead">Chosen on validation; test was scored once per finished run and is shown beside what validation
 chose.</p>
{{ scrolling("best per corpus") }}<table>
  <thead><tr><th scope="col">corpus</th><th scope="col">lowest</th><th scope="col" class="n">bits/byte</th>
    <th scope="col" class="n">95 % interval</th><th scope="col" class="n">gain</th><th scope="col" class="n">test</th>
    <th scope="col" class="n">seeds</th><th scope="col" class="n">tied</th><th scope="col">training</th></tr></thead>
  <tbody>{% for row in rows %}<tr><th scope="row"><bdi>{{ row.corpus }}</bdi><br><small>{{ row.text }}</small></th>
    <td><bdi>{{ row.label }}</bdi></td>
    <td class="n">{{ row.bits }}</td><td class="n"><span class="range">{{ row.range }}</span></td>
    <td class="n">{{ row.gain }}</td><td class="n">{{ row.test }}</td><td class="n">{{ row.num_seeds }}</td>
    <td class="n">{{ row.tied }}</td><td>{{ row.training }}</td></tr>{% endfor %}</tbody></table></div>
<ul class="caveats">{% for claim in claims %}<li><bdi>{{ claim | prose }}</bdi></li>{% endfor %}</ul>
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    corpora = report.findings.corpora
    if not corpora:
        return None
    rows = [_best_row(report.findings, corpus) for corpus in corpora]
    claims = [corpus.best.claim for corpus in corpora]
    claims += [f"On {corpus.label}: {corpus.detectable.claim}" for corpus in corpora if corpus.detectable]
    return {"rows": rows, "claims": claims}


def _best_row(findings: Findings, corpus: CorpusFindings) -> dict[str, Any]:
    if corpus.best.lowest is None:
        return {"corpus": corpus.label, "text": "", "label": "no result"} | dict.fromkeys(
            ("bits", "range", "gain", "test", "num_seeds", "tied", "training"), NONE
        )
    lowest = findings.candidate(corpus.best.lowest)
    reading = findings.test_of(lowest.key)
    return {
        "corpus": corpus.label,
        "text": "; ".join(filter(None, (documents(corpus.num_documents, corpus.effective_documents), _seen(lowest)))),
        "label": lowest.label,
        "bits": figure(lowest.bits_per_byte),
        "range": span(lowest.bits_per_byte),
        "gain": relative_gain(lowest.gain, lowest.bits_per_byte),
        "test": shown_on_test(reading, lowest),
        "num_seeds": len(lowest.seeds),
        "tied": f"{len(corpus.best.tied)} of {len(corpus.candidates)}" if not corpus.best.is_decided else "alone",
        "training": trained_words(lowest.trained),
    }


def _seen(candidate: Candidate) -> str:
    """How much of the validation text follows templates; empty where it is not known."""
    seen = candidate.validation_seen
    return "" if seen is None else f"{100.0 * seen:.0f}\u00a0% of eight-word sequences occur in train"


def _summary(report: Report, reference: References) -> list[str]:
    findings = report.findings
    if not findings.corpora:
        return ["No run has a result yet."]
    several = len({candidate.model for corpus in findings.corpora for candidate in corpus.candidates}) > 1
    parts: list[str] = [
        "The metric is validation bits per byte, mean over seeds; lower is better. Gain is the base minus the adapted."
        + ("" if several else " With one model there is no best model; what follows compares its configurations.")
    ]
    if findings.overall is not None:
        parts += ["### Over all corpora", _choice(findings, findings.overall, reference)]
    choices = {item.corpus: item for item in findings.recommendations}
    for corpus in findings.corpora:
        title = f"### {escape(corpus.label)}"
        parts += [title, _choice(findings, choices[corpus.label], reference), *_tied(findings, corpus, reference)]
        parts += [Detail(title), Detail(_model_claim(findings, corpus)), Detail(f"{escape(corpus.best.claim)}.")]
        text = documents(corpus.num_documents, corpus.effective_documents)
        seen = f"; {_seen(corpus.candidates[0])}" if corpus.candidates and _seen(corpus.candidates[0]) else ""
        parts.append(Detail(f"Validation was {text}, {size(corpus.num_bytes)}{seen}."))
        parts += [Detail(f"{corpus.detectable.claim}.")] if corpus.detectable else []
        parts += map(Detail, _candidate_table(findings, corpus, reference))
    return parts


def _choice(findings: Findings, choice: Recommendation, reference: References) -> str:
    """The recommendation with what limits it, and what test then said."""
    references = ", ".join(reference(key) for key in choice.candidates)
    said = (*choice.elsewhere, *choice.caveats, *choice.on_test)
    first = f"{escape(choice.claim)}{f' ({references})' if references else ''}."
    return "\n".join([first, "", *(f"- {escape(sentence)}." for sentence in said)]).rstrip()


def _tied(findings: Findings, corpus: CorpusFindings, reference: References) -> list[str]:
    """Those that may be the best, each with what taking it costs at most."""
    members = tied_costs(findings, corpus.best)
    if len(members) < 2:
        return []
    words = [
        f"{escape(item.label)} ({', '.join(filter(None, (reference(item.key), cost)))})"
        for item, cost in members[:MAX_TIED]
    ]
    more = f" and {len(members) - MAX_TIED} more" if len(members) > MAX_TIED else ""
    return [f"The best is among these {len(members)}, 95 times in a hundred: {'; '.join(words)}{more}."]


def _model_claim(findings: Findings, corpus: CorpusFindings) -> str:
    """The best model of the corpus, which the hierarchy compared on settings that all models were tried with."""
    axis = next((axis for axis in findings.hierarchy.per_corpus if axis.corpus == corpus.label), None)
    if axis is not None:
        return f"{escape(axis.claim)}."
    model = corpus.candidates[0].model if corpus.candidates else ""
    return f"No best model here: only {escape(model)} was tried on it."


def _candidate_table(findings: Findings, corpus: CorpusFindings, reference: References) -> list[str]:
    verdicts = {item.second: item for item in corpus.best.comparisons}
    rows = []
    for candidate in corpus.candidates[:MAX_CANDIDATES]:
        compared, reading = verdicts.get(candidate.key), findings.test_of(candidate.key)
        rows.append(
            [
                reference(candidate.key),
                escape(candidate.label),
                str(len(candidate.seeds)),
                figure(candidate.bits_per_byte),
                span(candidate.bits_per_byte),
                bits(candidate.seed_deviation),
                alike(candidate.base_bits_per_byte, candidate.bits_per_byte),
                figure_and_span(candidate.gain, is_signed=True),
                _standing(corpus, candidate, compared),
                shown_on_test(reading, candidate),
                trained_words(candidate.trained),
            ]
        )
    headings = ["", "configuration", "seeds", "bits per byte", "95 % interval", "seed spread", "base", "gain"]
    more = len(corpus.candidates) - len(rows)
    note = f"… and {more} more configurations; benchmark\\_results.csv holds every run." if more > 0 else ""
    return [
        table([*headings, "against the lowest", "test", "training"], rows, 2),
        note,
        _other_metrics(corpus, reference),
    ]


def _standing(corpus: CorpusFindings, candidate: Candidate, compared: Comparison | None) -> str:
    if candidate.key == corpus.best.lowest:
        return "**best**" if corpus.best.is_decided else "lowest"
    if compared is None or compared.difference is None:
        return f"not compared: {escape(compared.reason)}" if compared else NONE
    opposite = oriented([compared], candidate.key, compared.first)
    shown = figure_and_span(opposite, is_signed=True)
    return f"{shown}, {'not the best' if compared.verdict is Verdict.NOT_THE_BEST else 'may be the best'}"


def _other_metrics(corpus: CorpusFindings, reference: References) -> str:
    rows = [
        [
            reference(candidate.key),
            number(candidate.perplexity),
            bits(candidate.bits_per_token),
            number(candidate.word_perplexity),
            bits(candidate.last_bits_per_byte),
            bits(candidate.best_checkpoint_bits_per_byte),
            number(candidate.last_training_loss),
        ]
        for candidate in corpus.candidates[:MAX_CANDIDATES]
    ]
    headings = ["", "token perplexity", "bits per token", "word perplexity"]
    return table([*headings, "at the last step", "at the best checkpoint", "last training loss"], rows)


SECTION = Section(
    "corpora",
    300,
    page=PagePart(_PAGE, "Best per corpus", _values),
    summary=SummaryPart(Chapter.BEST, _summary),
)
