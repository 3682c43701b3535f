"""`results_summary.md`: what is read first, then what the records support by chapter; long tables lie beside it.

References such as c3 stand for configurations; the table of the runs behind the figures names the runs of each.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from lorabench.report.experiments import folder_of
from lorabench.report.markdown import escape
from lorabench.report.section import Chapter, Detail, References, Report, Section, in_order
from lorabench.report.sections.problems import problems_of

SUMMARY_NAME = "results_summary.md"
DETAILS_NAME = "results_details.md"


def render_summary(report: Report, figures: Collection[str] = ()) -> dict[str, str]:
    """Markdown by file name. `figures` are the names of those that exist as figures/NAME.svg beside it."""
    reference = References()
    blocks, details = (
        ["# Results"],
        ["# The tables behind the results", f"What they come to: [summary]({SUMMARY_NAME})."],
    )
    for number, chapter in enumerate(Chapter):
        heading = f"{number}. {chapter.value}"
        blocks += [f"## {heading}"] if chapter is not Chapter.TOP else []
        sections = _of_chapter(report, chapter)
        found = _rendered(report, sections, reference)
        blocks += [block for block in found if not isinstance(block, Detail)]
        long = [block for block in found if isinstance(block, Detail)]
        if long:
            details += [f"## {heading}", *long]
            blocks.append(f"The tables: [{DETAILS_NAME}]({DETAILS_NAME}#{_anchor(heading)}).")
        blocks += [line for section in sections for line in _figure(report, section, figures)]
    return {SUMMARY_NAME: "\n\n".join(blocks) + "\n", DETAILS_NAME: "\n\n".join(details) + "\n"}


def render_summaries(reports: Sequence[Report], results: Path) -> str:
    """What is read first of each of several experiments, by itself, and where the rest of it lies."""
    blocks = ["# Results", f"{len(reports)} experiments lie in this folder, each reported by itself, the latest first."]
    for report in reports:
        blocks += [f"## {escape(report.experiment)}"]
        blocks += _rendered(report, _of_chapter(report, Chapter.TOP), References())
        if (folder := folder_of(report.experiment, results)) is not None:
            place = (folder / SUMMARY_NAME).relative_to(results).as_posix()
            blocks.append(f"The rest of it: [{place}]({place}).")
    blocks += problems_of(reports)
    return "\n\n".join(blocks) + "\n"


def _rendered(report: Report, sections: Sequence[Section], reference: References) -> list[str]:
    """The blocks of the sections' parts."""
    parts = [section.summary for section in sections if section.summary is not None]
    return [block for part in parts for block in part.render(report, reference) if block]


def _anchor(heading: str) -> str:
    """As Markdown viewers make it of a heading."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def _of_chapter(report: Report, chapter: Chapter) -> list[Section]:
    parts = [
        (section.place if section.summary.place is None else section.summary.place, section)
        for section in in_order(report.sections)
        if section.summary is not None and section.summary.chapter is chapter
    ]
    return [section for _, section in sorted(parts, key=lambda part: part[0])]


def _figure(report: Report, section: Section, figures: Collection[str]) -> list[str]:
    """The section's figure, where there is a file of it."""
    picture = report.picture_of(section) if figures else None
    if picture is None or section.summary is None or not section.summary.caption or picture.name not in figures:
        return []
    return [f"![{section.summary.caption}](figures/{picture.name}.svg)"]
