"""What the data suggests to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorabench.report.markdown import bullets
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, PagePart, References, Report, Section, SummaryPart

_PAGE = """
<h3>What to do next</h3><ul class="caveats">
{%- for step in steps %}<li><bdi>{{ step | prose }}</bdi></li>{% endfor %}</ul>
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    return {"steps": report.findings.next_steps} if report.findings.next_steps else None


def _summary(report: Report, reference: References) -> list[str]:
    return [bullets(report.findings.next_steps) or "Nothing stands out."]


SECTION = Section(
    "next_steps",
    120,
    page=PagePart(_PAGE, values=_values),
    summary=SummaryPart(Chapter.NEXT_STEPS, _summary),
)
