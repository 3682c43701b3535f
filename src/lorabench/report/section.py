"""What a section of the report is: its part of the page, of the summary, of the LaTeX file, and its figure.

Each section is one file in `report/sections/` with a `SECTION`; page, summary, LaTeX and figures go through them in
order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from lorabench.analysis.findings import Findings
from lorabench.analysis.progress import Progress
from lorabench.experiment.reference_results import ReferenceResults
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import RecordStore
from lorabench.report.curves import Curves, read_curves
from lorabench.report.deployment_table import DeployedRun, deployed_runs
from lorabench.report.picture import Picture

TEMPLATES = Path(__file__).parent / "templates"


class References:
    """Short names for candidates (c1, c2, …), given in the order in which the summary mentions them."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def __call__(self, key: str) -> str:
        return self.names.setdefault(key, f"c{len(self.names) + 1}")


class Detail(str):
    """A block of Markdown that is too long for the summary and stands in results_details.md."""

    __slots__ = ()


class Chapter(Enum):
    """The chapters of the summary, in their order."""

    TOP = ""
    OVERVIEW = "Overview"
    MODELS = "Model hierarchy"
    BEST = "Best model per dataset"
    CONFIGURATION = "LoRA configuration analysis"
    EFFICIENCY = "Training efficiency"
    REPRODUCTION = "How to reproduce"
    NEXT_STEPS = "Next steps"


def with_picture(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    """A part of the page that is there where its figure is."""
    return None if picture is None else {"picture": picture}


def _no_data(report: Report) -> Mapping[str, object]:
    return {}


@dataclass(frozen=True)
class PagePart:
    """A part of the page."""

    template: str
    """Jinja, and every value is escaped; the filters and macros are those of `report.page`."""
    title: str = ""
    """In the page's list of sections; empty: it goes on within the section before it."""
    values: Callable[[Report, Picture | None], Mapping[str, Any] | None] = with_picture
    """What the template is given; None where there is nothing to show."""
    data: Callable[[Report], Mapping[str, object]] = _no_data
    """By the id of an element: what the script reads from it as JSON."""
    script: str = ""
    """JavaScript, run as part of the page's own script once the page is there."""


@dataclass(frozen=True)
class SummaryPart:
    """A part of the summary."""

    chapter: Chapter
    render: Callable[[Report, References], Sequence[str]] = lambda report, reference: ()
    """Blocks of Markdown, the long ones as `Detail`; outside text goes through `markdown.escape`."""
    caption: str = ""
    """Of the section's figure, which stands at the end of the chapter where the figure was drawn."""
    place: int | None = None
    """Where the order within the chapter is not that of the page."""


@dataclass(frozen=True)
class Section:
    """One section of the report; what it has no part of is None."""

    name: str
    """Unique; the id of its element on the page."""
    place: int
    """Sections come in this order, those of one place by name."""
    page: PagePart | None = None
    summary: SummaryPart | None = None
    latex: Callable[[Report], str] | None = None
    """LaTeX; outside text goes through `latex.latex_text`."""
    picture: Callable[[Report], Picture] | None = None
    """Its figure, drawn on the page and as a file; one without panels is not drawn."""
    is_drawn_on_page: bool = True
    """False where the page draws the figure's subject in its own way."""


@dataclass(frozen=True)
class Report:
    """What sections are written from."""

    findings: Findings
    records: Sequence[RunRecord]
    store: RecordStore
    sections: Sequence[Section]
    output_dir: str = "outputs"
    """As it is typed in a command."""
    progress: Sequence[Progress] = ()
    """Of experiments that are not at their end."""
    experiment: str = ""
    """Its name, where the report is of one."""
    references: Sequence[ReferenceResults] = ()
    """Results from elsewhere, to be shown beside."""
    _pictures: dict[str, Picture | None] = field(default_factory=dict)

    @cached_property
    def ordered(self) -> list[RunRecord]:
        """The records by corpus, the lowest figure first, then what was not trained to its end."""
        return sorted(self.records, key=_order)

    @cached_property
    def curves(self) -> Curves:
        """Of the records in order, each read once and compared with its hash."""
        return read_curves(self.ordered, self.store)

    @cached_property
    def _deployments(self) -> tuple[list[DeployedRun], list[str]]:
        return deployed_runs(self.ordered, self.store)

    @property
    def deployed(self) -> list[DeployedRun]:
        """Runs whose forms were measured."""
        return self._deployments[0]

    @property
    def problems(self) -> list[str]:
        """A sentence on each record and file that could not be used."""
        return [*self.findings.problems, *self.curves.problems, *self._deployments[1]]

    @property
    def pictures(self) -> list[Picture]:
        """Every figure there is something to draw for, in order."""
        return [found for section in in_order(self.sections) if (found := self.picture_of(section)) is not None]

    def picture_of(self, section: Section) -> Picture | None:
        """The section's figure; None where there is nothing to draw."""
        if section.name not in self._pictures:
            picture = section.picture(self) if section.picture is not None else None
            self._pictures[section.name] = picture if picture is not None and picture.panels else None
        return self._pictures[section.name]


def _order(record: RunRecord) -> tuple[str, bool, bool, float, str]:
    figure = None if record.validation is None else record.validation.bits_per_byte
    is_whole = record.status is Status.COMPLETED
    return record.spec.dataset, not is_whole, figure is None, figure or 0.0, record.run_id


def in_order(sections: Sequence[Section]) -> list[Section]:
    """Raises ValueError where two have one name."""
    names = [section.name for section in sections]
    if len(set(names)) < len(names):
        raise ValueError(f"two sections of the report are called {next(n for n in names if names.count(n) > 1)}")
    return sorted(sections, key=lambda section: (section.place, section.name))
