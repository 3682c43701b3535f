"""`results_summary.md`: what the records support, in seven parts, each number with the runs it comes from.

Written from the findings alone. References such as c3 stand for configurations; the last table of part 6 names the runs
behind each. All outside text goes through `markdown.escape`.
"""

from __future__ import annotations

from collections.abc import Collection

from lorabench.analysis.comparisons import oriented
from lorabench.analysis.findings import (
    Candidate,
    Comparison,
    CorpusFindings,
    Findings,
    Recommendation,
    Verdict,
)
from lorabench.analysis.statistics import Interval
from lorabench.formatting import NONE, bits, count, millions, number, signed_bits, size, span
from lorabench.report.markdown import bullets, code_block, escape, table
from lorabench.report.summary_tables import (
    MAX_CANDIDATES,
    References,
    axis_section,
    comparison_table,
    configuration_part,
    efficiency_part,
)

SUMMARY_NAME = "results_summary.md"
MAX_FAILURES = 50
_FIGURES = {
    "models": ("hierarchy", "Base models over all shared corpora, with intervals"),
    "gain_over_base": ("best", "Gain over the base on each corpus, with intervals"),
    "drift": ("best", "Drift on other corpora"),
    "document_length": ("best", "Bits per byte by document length"),
    "rank_by_learning_rate": ("axes", "Validation bits per byte by rank and learning rate, with intervals"),
    "quality_by_cost": ("efficiency", "Quality against speed, memory and adapter size"),
    "training_curves": ("efficiency", "Training curves of selected runs"),
}


def render_summary(findings: Findings, figures: Collection[str] = (), output_dir: str = "outputs") -> str:
    """The Markdown text. `figures` are the names of those that exist as figures/NAME.svg beside it."""
    reference = References()
    parts = [
        "# Results",
        *_recommendation(findings, reference),
        *_overview(findings),
        *_hierarchy(findings, reference),
        *_embedded("hierarchy", figures),
        *_best(findings, reference),
        *_embedded("best", figures),
        *configuration_part(findings, reference),
        *_embedded("axes", figures),
        *efficiency_part(findings, reference),
        *_embedded("efficiency", figures),
        *_reproduction(findings, reference, output_dir),
        *_next_steps(findings),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _embedded(place: str, figures: Collection[str]) -> list[str]:
    return [
        f"![{title}](figures/{name}.svg)"
        for name, (where, title) in _FIGURES.items()
        if where == place and name in figures
    ]


def _recommendation(findings: Findings, reference: References) -> list[str]:
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


def _overview(findings: Findings) -> list[str]:
    overview = findings.overview
    states = ", ".join(f"{num} {status.value.replace('_', ' ')}" for status, num in overview.num_by_status.items())
    lines = [
        f"{overview.num_runs} runs{f' ({states})' if states else ''}: {len(overview.models)} models, "
        f"{len(overview.corpora)} corpora, seeds {', '.join(map(str, overview.seeds)) or NONE}.",
        f"Varied: {', '.join(overview.varied).replace('_', ' ') or 'nothing'}.",
    ]
    if overview.hardware:
        lines.append(f"Ran on {'; '.join(escape(item) for item in overview.hardware)}.")
    experiments = [
        [escape(item.name), escape(item.question, 300) or NONE, f"{item.num_completed} of {item.num_runs}"]
        for item in overview.experiments
    ]
    models = [
        [
            escape(model.name),
            escape(model.revision[:12]) + ("" if model.pinned else " (not pinned)"),
            millions(model.num_parameters),
            escape(model.licence or NONE),
            escape(model.weights_note or NONE),
        ]
        for model in overview.models
    ]
    return [
        "## 1. Overview",
        " ".join(lines),
        table(["experiment", "question", "completed"], experiments, 2) if experiments else "",
        table(["model", "revision", "parameters", "licence", "weights"], models, 5) if models else "",
        *_corpora(findings),
        *_failures(findings),
        *(["### What this design cannot tell", bullets(findings.unanswered)] if findings.unanswered else []),
        *(["### Records and files that could not be used", bullets(findings.problems)] if findings.problems else []),
    ]


def _corpora(findings: Findings) -> list[str]:
    rows = [
        [
            escape(corpus.label),
            escape(corpus.revision[:12]) + ("" if corpus.pinned else " (not pinned)"),
            " / ".join(count(corpus.split_documents.get(split)) for split in ("train", "validation", "test")),
            f"{count(corpus.num_documents)} documents, {size(corpus.num_bytes)}",
            ", ".join(f"{count(num)} {escape(name.replace('_', ' '))}" for name, num in corpus.removed.items()) or NONE,
            escape(corpus.licence or NONE),
            "; ".join(escape(caveat) for caveat in corpus.caveats) or NONE,
        ]
        for corpus in findings.corpora
    ]
    headings = ["corpus", "revision", "train / validation / test", "validation scored", "removed", "licence", "notes"]
    return ["### Corpora", table(headings, rows, 7)] if rows else []


def _failures(findings: Findings) -> list[str]:
    if not findings.unfinished:
        return []
    rows = [
        [escape(item.run_id), item.status.value.replace("_", " "), escape(item.reason or NONE, 500)]
        for item in findings.unfinished[:MAX_FAILURES]
    ]
    more = len(findings.unfinished) - len(rows)
    note = f"… and {more} more; benchmark\\_results.csv lists them all." if more else ""
    return ["### Runs without a result", table(["run", "state", "reason"], rows, 3), note]


def _hierarchy(findings: Findings, reference: References) -> list[str]:
    hierarchy = findings.hierarchy
    ranking = [
        [
            escape(item.model),
            bits(item.mean_bits_per_byte.estimate) if item.mean_bits_per_byte else NONE,
            span(item.mean_bits_per_byte),
            ("best" if sum(other.is_tied_best for other in hierarchy.ranking) == 1 else "tie")
            if item.is_tied_best and hierarchy.is_answered
            else "",
            f"{item.num_corpora_best} of {len(hierarchy.per_corpus)}",
        ]
        for item in hierarchy.ranking
    ]
    headings = ["model", "mean bits per byte", "95 % interval", "standing", "best alone on"]
    return [
        "## 2. Model hierarchy",
        f"{escape(hierarchy.claim)}.",
        table(headings, ranking) if ranking else "",
        *([comparison_table(hierarchy.comparisons)] if hierarchy.comparisons else []),
        bullets(hierarchy.caveats) if hierarchy.caveats else "",
        *(part for axis in hierarchy.per_corpus for part in axis_section(findings, axis, reference)),
    ]


def _best(findings: Findings, reference: References) -> list[str]:
    title = "## 3. Best model per dataset"
    if not findings.corpora:
        return [title, "No run has a result yet."]
    several = len({candidate.model for corpus in findings.corpora for candidate in corpus.candidates}) > 1
    parts = [
        title,
        "The metric is validation bits per byte, mean over seeds; lower is better. Gain is the base minus the adapted."
        + ("" if several else " With one model there is no best model; what follows compares its configurations."),
    ]
    for corpus in findings.corpora:
        parts += [f"### {escape(corpus.label)}", *_model_claim(findings, corpus), f"{escape(corpus.best.claim)}."]
        parts += _candidate_table(findings, corpus, reference)
    return [*parts, *_drift(findings, reference), *_lengths(findings, reference)]


def _model_claim(findings: Findings, corpus: CorpusFindings) -> list[str]:
    """The best model of the corpus, which the hierarchy compared on settings that all models were tried with."""
    axis = next((axis for axis in findings.hierarchy.per_corpus if axis.corpus == corpus.label), None)
    if axis is not None:
        return [f"{escape(axis.claim)}."]
    model = corpus.candidates[0].model if corpus.candidates else ""
    return [f"No best model here: only {escape(model)} was tried on it."]


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
                bits(candidate.bits_per_byte.estimate),
                span(candidate.bits_per_byte),
                bits(candidate.seed_deviation),
                bits(candidate.base_bits_per_byte),
                f"{signed_bits(candidate.gain.estimate)} ({span(candidate.gain, is_signed=True)})"
                if candidate.gain
                else NONE,
                _standing(corpus, candidate, compared),
                bits(reading.bits_per_byte.estimate) if reading and reading.bits_per_byte else NONE,
            ]
        )
    headings = ["", "configuration", "seeds", "bits per byte", "95 % interval", "seed spread", "base", "gain"]
    more = len(corpus.candidates) - len(rows)
    note = f"… and {more} more configurations; benchmark\\_results.csv holds every run." if more > 0 else ""
    return [table([*headings, "against the lowest", "test"], rows, 2), note, _other_metrics(corpus, reference)]


def _standing(corpus: CorpusFindings, candidate: Candidate, compared: Comparison | None) -> str:
    if candidate.key == corpus.best.lowest:
        return "**best**" if corpus.best.is_decided else "lowest"
    if compared is None or compared.difference is None:
        return f"not compared: {escape(compared.reason)}" if compared else NONE
    opposite = oriented([compared], candidate.key, compared.first)
    shown = f"{signed_bits(opposite.estimate)} ({span(opposite, is_signed=True)})" if opposite else NONE
    return f"{shown}, {'higher' if compared.verdict is Verdict.LOWER else 'no detectable difference'}"


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


def _drift(findings: Findings, reference: References) -> list[str]:
    if not findings.drift:
        return []
    columns = list(dict.fromkeys(cell.scored_on for cell in findings.drift))
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for cell in findings.drift:
        mark = {Verdict.LOWER: "better", Verdict.HIGHER: "worse"}.get(cell.verdict, cell.verdict.value)
        shown = f"{signed_bits(cell.change.estimate)} ({span(cell.change, is_signed=True)}), {mark}"
        rows.setdefault((cell.model, cell.trained_on, cell.candidate), {})[cell.scored_on] = shown
    lines = [
        [escape(model), escape(corpus), reference(key), *(cells.get(name, NONE) for name in columns)]
        for (model, corpus, key), cells in rows.items()
    ]
    return [
        "### Drift: trained on × scored on",
        "Adapted minus base, in bits per byte, on corpora the adapter was not trained on; positive is worse.",
        table(["model", "trained on", "", *(escape(name) for name in columns)], lines, 3),
    ]


def _lengths(findings: Findings, reference: References) -> list[str]:
    rows = [
        [
            escape(bucket.corpus),
            reference(bucket.candidate),
            f"{count(bucket.low_bytes)} to {count(bucket.high_bytes)}",
            count(bucket.num_documents),
            number(bucket.perplexity),
            bits(bucket.bits_per_byte),
            bits(bucket.base_bits_per_byte),
        ]
        for bucket in findings.length_buckets
    ]
    headings = ["corpus", "", "bytes", "documents", "token perplexity", "bits per byte", "base"]
    return ["### By document length", table(headings, rows, 2)] if rows else []


def _reproduction(findings: Findings, reference: References, output_dir: str) -> list[str]:
    overview = findings.overview
    commands = list(dict.fromkeys(line for item in overview.experiments for line in item.commands))
    parts = ["## 6. How to reproduce"]
    if commands:
        parts += ["The commands as they were given:", *(code_block(command) for command in commands)]
        versions = (
            f"lorabench {', '.join(map(escape, overview.lorabench_versions))}; {', '.join(map(escape, overview.code))}"
        )
        parts.append(f"With {versions}. One run again from its record, and compared:")
        parts.append(code_block(f"lorabench reproduce RUN_ID --output-dir {output_dir}"))
    parts += ["This summary again from the records alone:", code_block(f"lorabench report {output_dir}")]
    rows = [
        [name, escape(item.label), escape(item.corpus), ", ".join(map(escape, item.run_ids))]
        for key, name in reference.names.items()
        for item in [findings.candidate(key)]
    ]
    if rows:
        parts += ["### The runs behind the figures", table(["", "configuration", "corpus", "runs, by seed"], rows, 4)]
    return parts


def _next_steps(findings: Findings) -> list[str]:
    return ["## 7. Next steps", bullets(findings.next_steps) or "Nothing stands out."]
