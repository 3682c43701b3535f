"""What the data suggests to do next."""

from __future__ import annotations

from lorabench.report.markdown import bullets
from lorabench.report.section import Chapter, References, Report, Section, SummaryPart


def _summary(report: Report, reference: References) -> list[str]:
    return [bullets(report.findings.next_steps) or "Nothing stands out."]


SECTION = Section(
    "next_steps",
    120,
    summary=SummaryPart(Chapter.NEXT_STEPS, _summary),
)
