"""What the runs leave open: one model, one rank, one seed, …"""

from __future__ import annotations

from lorabench.report.markdown import bullets
from lorabench.report.section import Chapter, Detail, References, Report, Section, SummaryPart

MAX_SENTENCES = 12
"""In the summary; the tables beside it hold them all."""


def _summary(report: Report, reference: References) -> list[str]:
    found = report.findings.unanswered
    title, more = "### What this design cannot tell", len(found) - MAX_SENTENCES
    if more <= 0:
        return [title, bullets(found)] if found else []
    return [
        title,
        bullets(found[:MAX_SENTENCES]),
        f"… and {more} more in the tables.",
        Detail(title),
        Detail(bullets(found)),
    ]


SECTION = Section(
    "unanswered",
    110,
    summary=SummaryPart(Chapter.OVERVIEW, _summary, place=1300),
)
