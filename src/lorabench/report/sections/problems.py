"""Records and files that could not be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def problems_of(reports: Sequence[Report], level: int = 2) -> list[str]:
    """In Markdown, each once, under a heading of a level; nothing where there are none."""
    found = first_of(list(dict.fromkeys(problem for report in reports for problem in report.problems)))
    return [f"{'#' * level} Records and files that could not be used", bullets(found)] if found else []


def _summary(report: Report, reference: References) -> list[str]:
    return problems_of([report], level=3)


SECTION = Section(
    "problems",
    130,
    page=PagePart(_PAGE, values=_values),
    summary=SummaryPart(Chapter.OVERVIEW, _summary, place=1400),
)
