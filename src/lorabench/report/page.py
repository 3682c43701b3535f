"""The page: one file that opens from disk, offline, and says in ten seconds what to take and how sure that is.

It shows what the analysis found and computes no verdict of its own; the sections in `report/sections/` make its parts.
Its content security policy admits no request and, of scripts, exactly the page's own and plotly's, by their hashes:
text that came in from outside cannot run even if it were not escaped. plotly lies in the page once, compressed, and is
unpacked after the page is shown.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from lorabench.analysis.findings import Findings
from lorabench.core import formatting
from lorabench.core.version import VERSION
from lorabench.report.headline import MAX_SENTENCES
from lorabench.report.page_data import script_json
from lorabench.report.page_figures import figures_payload
from lorabench.report.picture import Picture
from lorabench.report.section import TEMPLATES, PagePart, Report, in_order

PAGE_NAME = "report.html"
MAX_TABLE_ROWS = 250
RELOAD_SECONDS = 30
"""While an experiment runs."""
_SCRIPTS_SHARED = ("plotly.js", "reload.js")
_SCRIPTS_BEFORE, _SCRIPTS_AFTER = ("common.js", "figures.js"), ("start.js",)
_FILTERS = ("bits", "figure", "percent", "count", "size", "number", "shorten", "millions", "span", "documents")
_MACROS = ("span", "standing", "some", "data_table", "scrolling", "figure", "caveats")


@dataclass
class _Part:
    """An element of the page: a section and those that go on within it."""

    name: str
    title: str
    content: Markup = field(default_factory=Markup)


@dataclass
class Panel:
    """What the page shows of one experiment."""

    title: str
    summary: str
    has_runs: bool
    is_running: bool
    parts: list[_Part] = field(default_factory=list)
    payloads: dict[str, Markup] = field(default_factory=dict)
    scripts: list[str] = field(default_factory=list)


def panel_of(report: Report) -> Panel:
    """Cost: one read of every run's metrics.jsonl, and no other file."""
    findings = report.findings
    panel = Panel(
        title=report.experiment or title_of(findings),
        summary=_summary(findings),
        has_runs=findings.overview.num_runs > 0,
        is_running=any(one.is_running for one in report.progress),
    )
    payloads: dict[str, object] = {}
    pictures: list[Picture] = []
    for section in in_order(report.sections):
        picture = report.picture_of(section) if section.is_drawn_on_page else None
        values = section.page.values(report, picture) if section.page is not None else None
        if section.page is None or values is None:
            continue
        if section.page.title or not panel.parts:
            panel.parts.append(_Part(section.name, section.page.title))
        panel.parts[-1].content += _content(section.page, values)
        pictures += [picture] if picture is not None else []
        panel.scripts += [section.page.script] if section.page.script else []
        payloads |= section.page.data(report) if panel.has_runs else {}
    payloads["figures-data"] = figures_payload(pictures)
    panel.payloads = {name: Markup(script_json(value)) for name, value in payloads.items()}
    return panel


def render_page(panels: Sequence[Panel], version_served: str = "") -> str:
    """The page's HTML: one experiment, or several, each in a tab of its own.

    With `version_served`, its name among those that `report.watch` serves, it listens for a newer one.
    """
    script = _script([panel.scripts for panel in panels])
    names = [panel.title for panel in panels]
    return (
        environment()
        .get_template("page.html")
        .render(
            title=", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else ""),
            panels=panels,
            version_served=version_served,
            reload_seconds=RELOAD_SECONDS if any(panel.is_running for panel in panels) else None,
            style=Markup(_template("page.css")),
            script=Markup(script),
            script_hashes=Markup(f"'{_hash(script)}' '{_hash(_plotly())}'"),
            plotly_packed=Markup(_packed_plotly()),
            version=VERSION,
        )
    )


def _content(part: PagePart, values: Mapping[str, Any]) -> Markup:
    return Markup(_compiled(part.template).render(values))


@cache
def _compiled(source: str) -> Template:
    """Compiling a section's template takes longer than filling it, and a report is made anew as runs end."""
    return environment().from_string(source)


@cache
def environment() -> Environment:
    """Jinja with the report's filters and macros; everything is escaped. It keeps its compiled templates."""
    jinja = Environment(
        loader=PackageLoader("lorabench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {name: getattr(formatting, name) for name in _FILTERS}
    jinja.filters |= {"prose": _prose, "numeric": _numeric_columns}
    jinja.globals |= {"max_table_rows": MAX_TABLE_ROWS, "max_sentences": MAX_SENTENCES}
    macros = jinja.get_template("macros.html").module
    jinja.globals |= {name: getattr(macros, name) for name in _MACROS}
    return jinja


def _prose(sentence: str) -> Markup:
    """A sentence of the analysis, escaped; what stands between backticks is set as code."""
    parts = str(escape(sentence)).split("`")
    if len(parts) % 2 == 0:
        return Markup("`".join(parts))
    return Markup("".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts)))


def _numeric_columns(picture: Picture) -> set[str]:
    """Columns whose cells are all figures; they are set flush right."""
    columns = zip(picture.columns, zip(*picture.rows, strict=True), strict=True) if picture.rows else ()
    return {name for name, cells in columns if all(cell[:1] in "0123456789−+–∞" for cell in cells)}


def _script(panels: Sequence[Sequence[str]]) -> str:
    """One function for each experiment, which makes its part of the page live; then what all of them share.

    In it lie what all sections use, the sections' own scripts, and what runs when all are there.
    """
    starts = [
        "() => {\n" + "\n".join([*map(_template, _SCRIPTS_BEFORE), *scripts, *map(_template, _SCRIPTS_AFTER)]) + "}"
        for scripts in panels
    ]
    different = list(dict.fromkeys(starts))
    listed = ", ".join(f"start{different.index(start)}" for start in starts)
    functions = [f"const start{place} = {start};" for place, start in enumerate(different)]
    shared = [*map(_template, _SCRIPTS_SHARED), *functions, f"const starts = [{listed}];", _template("experiments.js")]
    return '\n(() => {\n"use strict";\n' + "\n".join(shared) + "})();\n"


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """plotly's script as its Python package brings it; the package itself is not imported."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("plotly is not installed")
    return (Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


@cache
def _packed_plotly() -> str:
    return base64.b64encode(gzip.compress(_plotly().encode("utf-8"), mtime=0)).decode("ascii")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def title_of(findings: Findings) -> str:
    """The names of the experiments that lie in the folder."""
    names = [experiment.name for experiment in findings.overview.experiments]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "No runs yet"


def _summary(findings: Findings) -> str:
    overview = findings.overview
    states = [
        f"{formatting.count(number)} {status.value.replace('_', ' ')}"
        for status, number in overview.num_by_status.items()
        if number
    ]
    runs = f"{formatting.count(overview.num_runs)} run{'s' if overview.num_runs != 1 else ''}"
    parts = [runs + (f": {', '.join(states)}" if states else "")]
    if overview.last_finished_at:
        parts.append(f"last finished {overview.last_finished_at[:16].replace('T', ' ')} UTC")
    return " · ".join(parts)
