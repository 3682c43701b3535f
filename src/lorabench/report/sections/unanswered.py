"""What the runs leave open: one model, one rank, one seed, …"""

from __future__ import annotations

from lorabench.report.markdown import bullets
from lorabench.report.section import Chapter, References, Report, Section, SummaryPart


def _summary(report: Report, reference: References) -> list[str]:
    found = report.findings.unanswered
    return ["### What this design cannot tell", bullets(found)] if found else []


SECTION = Section(
    "unanswered",
    110,
    summary=SummaryPart(Chapter.OVERVIEW, _summary, place=1300),
)
