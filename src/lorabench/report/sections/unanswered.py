"""What the runs leave open: one model, one rank, one seed, …"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorabench.report.markdown import bullets
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, PagePart, References, Report, Section, SummaryPart

_PAGE = "<h3>What these runs cannot tell</h3>{{ caveats(sentences) }}"


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    return {"sentences": report.findings.unanswered} if report.findings.unanswered else None


def _summary(report: Report, reference: References) -> list[str]:
    found = report.findings.unanswered
    return ["### What this design cannot tell", bullets(found)] if found else []


SECTION = Section(
    "unanswered",
    110,
    page=PagePart(_PAGE, values=_values),
    summary=SummaryPart(Chapter.OVERVIEW, _summary, place=1300),
)
