"""What lies in the folder: how many runs, of what experiments and models."""

from __future__ import annotations

from lorabench.core.formatting import NONE, millions, plural
from lorabench.report.markdown import escape, table
from lorabench.report.section import Chapter, References, Report, Section, SummaryPart


def _summary(report: Report, reference: References) -> list[str]:
    overview = report.findings.overview
    states = ", ".join(f"{num} {status.value.replace('_', ' ')}" for status, num in overview.num_by_status.items())
    corpora = "1 corpus" if len(overview.corpora) == 1 else f"{len(overview.corpora)} corpora"
    runs = plural(overview.num_runs, "run") + (f" ({states})" if states else "")
    seeds = ", ".join(map(str, overview.seeds)) or NONE
    lines = [
        f"{runs}: {plural(len(overview.models), 'model')}, {corpora}, seeds {seeds}.",
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
        " ".join(lines),
        table(["experiment", "question", "completed"], experiments, 2) if experiments else "",
        table(["model", "revision", "parameters", "licence", "weights"], models, 5) if models else "",
    ]


SECTION = Section("overview", 140, summary=SummaryPart(Chapter.OVERVIEW, _summary))
