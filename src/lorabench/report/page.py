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

from jinja2 import Environment, PackageLoader, StrictUndefined
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
_SCRIPTS_BEFORE, _SCRIPTS_AFTER = ("common.js", "figures.js"), ("reload.js", "start.js")
_FILTERS = ("bits", "figure", "percent", "count", "size", "number", "shorten", "millions", "span", "documents")
_MACROS = ("span", "standing", "some", "data_table", "figure", "caveats")


@dataclass
class _Part:
    """An element of the page: a section and those that go on within it."""

    name: str
    title: str
    content: Markup = field(default_factory=Markup)


def render_page(report: Report) -> str:
    """The page's HTML. Cost: one read of every run's metrics.jsonl, and no other file."""
    environment, parts = make_environment(), list[_Part]()
    payloads: dict[str, object] = {}
    pictures: list[Picture] = []
    scripts: list[str] = []
    has_runs = report.findings.overview.num_runs > 0
    for section in in_order(report.sections):
        picture = report.picture_of(section) if section.is_drawn_on_page else None
        values = section.page.values(report, picture) if section.page is not None else None
        if section.page is None or values is None:
            continue
        if section.page.title or not parts:
            parts.append(_Part(section.name, section.page.title))
        parts[-1].content += _content(environment, section.page, values)
        pictures += [picture] if picture is not None else []
        scripts += [section.page.script] if section.page.script else []
        payloads |= section.page.data(report) if has_runs else {}
    payloads["figures-data"] = figures_payload(pictures)
    script = _script(scripts)
    return environment.get_template("page.html").render(
        title=title_of(report.findings),
        summary=_summary(report.findings),
        parts=parts,
        has_runs=has_runs,
        reload_seconds=RELOAD_SECONDS if any(one.is_running for one in report.progress) else None,
        payloads={name: Markup(script_json(value)) for name, value in payloads.items()},
        style=Markup(_template("page.css")),
        script=Markup(script),
        script_hashes=Markup(f"'{_hash(script)}' '{_hash(_plotly())}'"),
        plotly_packed=Markup(_packed_plotly()),
        version=VERSION,
    )


def _content(environment: Environment, part: PagePart, values: Mapping[str, Any]) -> Markup:
    return Markup(environment.from_string(part.template).render(values))


def make_environment() -> Environment:
    """Jinja with the report's filters and macros; everything is escaped."""
    environment = Environment(
        loader=PackageLoader("lorabench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(formatting, name) for name in _FILTERS}
    environment.filters |= {"prose": _prose, "numeric": _numeric_columns}
    environment.globals |= {"max_table_rows": MAX_TABLE_ROWS, "max_sentences": MAX_SENTENCES}
    macros = environment.get_template("macros.html").module
    environment.globals |= {name: getattr(macros, name) for name in _MACROS}
    return environment


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


def _script(sections: Sequence[str]) -> str:
    """What all sections use, the sections' own scripts, and what runs when all are there."""
    parts = [_template(name) for name in _SCRIPTS_BEFORE] + [*sections] + [_template(name) for name in _SCRIPTS_AFTER]
    return '\n(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


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
