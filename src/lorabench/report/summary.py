"""`results_summary.md`: what the records support, chapter by chapter, each number with the runs it comes from.

References such as c3 stand for configurations; the table of the runs behind the figures names the runs of each.
"""

from __future__ import annotations

from collections.abc import Collection

from lorabench.report.section import Chapter, References, Report, Section, in_order

SUMMARY_NAME = "results_summary.md"


def render_summary(report: Report, figures: Collection[str] = ()) -> str:
    """The Markdown text. `figures` are the names of those that exist as figures/NAME.svg beside it."""
    reference = References()
    blocks = ["# Results"]
    for number, chapter in enumerate(Chapter):
        blocks += [f"## {number}. {chapter.value}"] if chapter is not Chapter.TOP else []
        sections = _of_chapter(report, chapter)
        for section in sections:
            blocks += section.summary.render(report, reference) if section.summary is not None else ()
        blocks += [line for section in sections for line in _figure(report, section, figures)]
    return "\n\n".join(block for block in blocks if block) + "\n"


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
