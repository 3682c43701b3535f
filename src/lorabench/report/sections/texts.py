"""The corpora as they were used: splits, what was scored, what was removed. The page has them beside the models."""

from __future__ import annotations

from lorabench.core.formatting import NONE, count, documents, size
from lorabench.report.markdown import escape, table
from lorabench.report.section import Chapter, References, Report, Section, SummaryPart


def _summary(report: Report, reference: References) -> list[str]:
    rows = [
        [
            escape(corpus.label),
            escape(corpus.revision[:12]) + ("" if corpus.pinned else " (not pinned)"),
            " / ".join(count(corpus.split_documents.get(split)) for split in ("train", "validation", "test")),
            f"{documents(corpus.num_documents, corpus.effective_documents)}, {size(corpus.num_bytes)}",
            ", ".join(f"{count(num)} {escape(name.replace('_', ' '))}" for name, num in corpus.removed.items()) or NONE,
            escape(corpus.licence or NONE),
            "; ".join(escape(caveat) for caveat in corpus.caveats) or NONE,
        ]
        for corpus in report.findings.corpora
    ]
    headings = ["corpus", "revision", "train / validation / test", "validation scored", "removed", "licence", "notes"]
    return ["### Corpora", table(headings, rows, 7)] if rows else []


SECTION = Section("texts", 150, summary=SummaryPart(Chapter.OVERVIEW, _summary))
