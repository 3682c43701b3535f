"""Records and files that could not be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorabench.core.formatting import first_of
from lorabench.report.markdown import bullets
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, PagePart, References, Report, Section, SummaryPart

_PAGE = """
<details><summary>{{ count }} file{{ "s" if count != 1 }} could not be used</summary>
{{- caveats(problems) }}</details>
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    found = report.problems
    return {"count": len(found), "problems": first_of(found)} if found else None


def _summary(report: Report, reference: References) -> list[str]:
    found = first_of(report.problems)
    return ["### Records and files that could not be used", bullets(found)] if found else []


SECTION = Section(
    "problems",
    130,
    page=PagePart(_PAGE, values=_values),
    summary=SummaryPart(Chapter.OVERVIEW, _summary, place=1400),
)
