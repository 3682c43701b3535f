"""Records and files that could not be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorabench.report.markdown import bullets
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, PagePart, References, Report, Section, SummaryPart

_PAGE = """
<details><summary>{{ problems | length }} file{{ "s" if problems | length != 1 }} could not be used</summary>
{{- caveats(problems) }}</details>
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    return {"problems": report.findings.problems} if report.findings.problems else None


def _summary(report: Report, reference: References) -> list[str]:
    found = report.findings.problems
    return ["### Records and files that could not be used", bullets(found)] if found else []


SECTION = Section(
    "problems",
    130,
    page=PagePart(_PAGE, values=_values),
    summary=SummaryPart(Chapter.OVERVIEW, _summary, place=1400),
)
