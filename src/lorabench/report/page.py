"""The page: one file that opens from disk, offline, and says in ten seconds what to take and how sure that is.

It shows what the analysis found and computes no verdict of its own. Its content security policy admits no request and,
of scripts, exactly the page's own and plotly's, by their hashes: text that came in from outside cannot run even if it
were not escaped. plotly lies in the page once, compressed, and is unpacked after the page is shown.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lorabench import __version__
from lorabench import formatting as numbers
from lorabench.analysis.findings import Candidate, CorpusFindings, Findings, Recommendation
from lorabench.analysis.statistics import Interval
from lorabench.record.schema import RunRecord, Sample
from lorabench.record.store import RecordStore
from lorabench.report.curves import TITLES, curves_payload, first_runs
from lorabench.report.page_data import runs_payload, script_json
from lorabench.report.page_figures import figures_payload
from lorabench.report.picture import Picture
from lorabench.report.pictures import make_pictures

PAGE_NAME = "report.html"
MAX_TABLE_ROWS = 250
_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("common.js", "curves.js", "figures.js", "table.js", "start.js")


def render_page(findings: Findings, records: Sequence[RunRecord], store: RecordStore) -> str:
    """The page's HTML. Cost: one read of every run's metrics.jsonl, and no other file."""
    records = sorted(records, key=_order)
    pictures = make_pictures(findings)
    script = _script()
    samples = _samples(findings, records)
    first = findings.overall or (findings.recommendations[0] if len(findings.recommendations) == 1 else None)
    has_cards = len(findings.corpora) > 1
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=_title(findings),
            summary=_summary(findings),
            sections=_sections(findings, pictures, bool(samples)),
            findings=findings,
            pictures=pictures,
            choice=_choice(findings, first) if first else None,
            cards=[_card(findings, item) for item in findings.recommendations] if has_cards else [],
            parameters={model.name: model.num_parameters for model in findings.overview.models},
            num_tied_models=sum(item.is_tied_best for item in findings.hierarchy.ranking),
            best_rows=[_best_row(findings, corpus) for corpus in findings.corpora],
            axes=(*findings.ranks, *findings.learning_rates, *findings.other_axes),
            curve_panels=list(TITLES.items()),
            samples=samples,
            places=_places(findings, records),
            commands=list(dict.fromkeys(line for item in findings.overview.experiments for line in item.commands)),
            payloads={
                "runs-data": Markup(script_json(runs_payload(records))),
                "curves-data": Markup(script_json(curves_payload(records, store))),
                "curves-first": Markup(script_json(first_runs(findings, records))),
                "figures-data": Markup(script_json(figures_payload(list(pictures.values())))),
            },
            max_table_rows=MAX_TABLE_ROWS,
            style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hashes=Markup(f"'{_hash(script)}' '{_hash(_plotly())}'"),
            plotly_packed=Markup(_packed_plotly()),
            version=__version__,
        )
    )


def _order(record: RunRecord) -> tuple[str, bool, float, str]:
    """By corpus, the lowest first; what has no figure last."""
    figure = None if record.validation is None else record.validation.bits_per_byte
    return record.spec.dataset, figure is None, figure or 0.0, record.run_id


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lorabench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(numbers, name) for name in ("bits", "percent", "count", "size", "number", "shorten", "millions")
    }
    environment.filters["prose"] = _prose
    environment.filters["numeric"] = _numeric_columns
    environment.filters["span"] = lambda interval, is_signed=False: numbers.span(interval, is_signed=is_signed)
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


def _script() -> str:
    parts = [(_TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    return '\n(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


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


def _title(findings: Findings) -> str:
    names = [experiment.name for experiment in findings.overview.experiments]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "No runs yet"


def _summary(findings: Findings) -> str:
    overview = findings.overview
    states = [
        f"{numbers.count(number)} {status.value.replace('_', ' ')}"
        for status, number in overview.num_by_status.items()
        if number
    ]
    runs = f"{numbers.count(overview.num_runs)} run{'s' if overview.num_runs != 1 else ''}"
    parts = [runs + (f": {', '.join(states)}" if states else "")]
    if overview.last_finished_at:
        parts.append(f"last finished {overview.last_finished_at[:16].replace('T', ' ')} UTC")
    return " · ".join(parts)


def _sections(findings: Findings, pictures: Mapping[str, Picture], has_samples: bool) -> list[tuple[str, str]]:
    has_axes = bool(findings.ranks or findings.learning_rates or findings.other_axes)
    has_runs = bool(findings.overview.num_runs)
    every = (
        ("recommendation", "Recommendation", True),
        ("models", "Base models", bool(findings.hierarchy.ranking)),
        ("corpora", "Best per corpus", bool(findings.corpora)),
        ("settings", "Rank and rate", "rank_by_learning_rate" in pictures or has_axes),
        ("cost", "Quality and cost", "quality_by_cost" in pictures),
        ("gain", "Gain over the base", "gain_over_base" in pictures),
        ("drift", "Drift", "drift" in pictures),
        ("lengths", "Document length", "document_length" in pictures),
        ("curves", "Training curves", has_runs),
        ("samples", "Samples", has_samples),
        ("runs", "All runs", has_runs),
        ("failures", "Failures", bool(findings.unfinished)),
        ("place", "Reproduce", has_runs),
    )
    return [(identity, name) for identity, name, is_there in every if is_there]


def _relative(gain: Interval | None, figure: Interval | None) -> str:
    """The gain as a share of the base, which is what was reached and what was gained together."""
    if gain is None or figure is None or figure.estimate + gain.estimate <= 0:
        return numbers.NONE
    return numbers.percent(-gain.estimate / (figure.estimate + gain.estimate))


def _choice(findings: Findings, chosen: Recommendation) -> dict[str, Any]:
    """What the top of the page shows of a recommendation."""
    candidates = [findings.candidate(key) for key in chosen.candidates]
    return {
        "corpus": chosen.corpus,
        "claim": chosen.claim,
        "has_choice": bool(candidates),
        "is_decided": chosen.is_decided,
        "alternatives": [findings.candidate(key).label for key in chosen.alternatives],
        "caveats": chosen.caveats,
        "facts": _facts(findings, chosen, candidates) if candidates else [],
    }


def _facts(findings: Findings, chosen: Recommendation, candidates: Sequence[Candidate]) -> list[dict[str, str]]:
    figure, gain = chosen.bits_per_byte, chosen.gain
    costs = [item.cost for item in candidates]
    facts = []
    if figure is not None:
        facts.append(("validation bits per byte", numbers.bits(figure.estimate), f"95 %: {numbers.span(figure)}"))
    if gain is not None:
        below = f"{numbers.bits(gain.estimate)} below the base ({numbers.span(gain)})"
        facts.append(("against the base", _relative(gain, figure), below))
    if len(candidates) == 1 and (reading := findings.test_of(candidates[0].key)) is not None and reading.bits_per_byte:
        facts.append(("on test", numbers.bits(reading.bits_per_byte.estimate), numbers.span(reading.bits_per_byte)))
    facts += [
        ("training speed", _range([cost.tokens_per_second for cost in costs], numbers.count), "tokens per second"),
        ("peak memory", _range([cost.peak_memory_bytes for cost in costs], numbers.size), "while training"),
        ("adapter", _range([cost.adapter_bytes for cost in costs], numbers.size), "on disk"),
    ]
    return [{"name": name, "value": value, "beside": beside} for name, value, beside in facts if value != numbers.NONE]


def _range(values: Sequence[float | None], write: Any) -> str:
    """One figure, or the lowest and the highest where they differ as written."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return numbers.NONE
    low, high = write(known[0]), write(known[-1])
    return low if low == high else f"{low} to {high}"


def _card(findings: Findings, chosen: Recommendation) -> dict[str, Any]:
    candidate = findings.candidate(chosen.candidates[0]) if chosen.candidates else None
    return {
        "corpus": chosen.corpus or "all corpora",
        "label": candidate.label if candidate else chosen.claim,
        "figure": numbers.bits(chosen.bits_per_byte.estimate) if chosen.bits_per_byte else "",
        "range": numbers.span(chosen.bits_per_byte) if chosen.bits_per_byte else "",
        "gain": f"{_relative(chosen.gain, chosen.bits_per_byte)} against the base" if chosen.gain else "",
        "has_choice": candidate is not None,
        "is_decided": chosen.is_decided,
        "alternatives": chosen.alternatives,
    }


def _best_row(findings: Findings, corpus: CorpusFindings) -> dict[str, Any]:
    if corpus.best.lowest is None:
        return {"corpus": corpus.label, "label": "no result"} | dict.fromkeys(
            ("bits", "range", "gain", "test", "num_seeds", "tied"), numbers.NONE
        )
    lowest = findings.candidate(corpus.best.lowest)
    reading = findings.test_of(lowest.key)
    return {
        "corpus": corpus.label,
        "label": lowest.label,
        "bits": numbers.bits(lowest.bits_per_byte.estimate),
        "range": numbers.span(lowest.bits_per_byte),
        "gain": _relative(lowest.gain, lowest.bits_per_byte),
        "test": numbers.bits(reading.bits_per_byte.estimate) if reading and reading.bits_per_byte else numbers.NONE,
        "num_seeds": len(lowest.seeds),
        "tied": f"{len(corpus.best.tied)} of {len(corpus.candidates)}" if not corpus.best.is_decided else "alone",
    }


def _samples(findings: Findings, records: Sequence[RunRecord]) -> list[tuple[str, str, tuple[Sample, ...]]]:
    by_id = {record.run_id: record for record in records}
    shown = []
    for corpus in findings.corpora:
        if corpus.best.lowest is not None:
            candidate = findings.candidate(corpus.best.lowest)
            record = by_id.get(candidate.run_ids[0]) if candidate.run_ids else None
            if record is not None and record.samples:
                shown.append((corpus.label, candidate.label, record.samples[:3]))
    return shown


def _places(findings: Findings, records: Sequence[RunRecord]) -> list[list[tuple[str, str]]]:
    """Each distinct surrounding of runs, the most used first."""
    counted: dict[tuple[tuple[str, str], ...], int] = {}
    for record in records:
        place = record.environment
        commit = place.git_commit and place.git_commit[:12] + (" (changed)" if place.git_dirty else "")
        packages = ", ".join(f"{name} {version}" for name, version in place.packages.items())
        shown = (
            ("device", f"{place.num_devices} × {place.device_name} ({place.device})"),
            ("machine", f"{place.processor}, {place.num_cores} cores, {numbers.size(place.memory_bytes)}"),
            ("system", f"{place.operating_system}, Python {place.python_version}"),
            (
                "lorabench",
                " ".join(part for part in (place.lorabench_version, commit or place.code_sha256[:12]) if part),
            ),
            ("packages", packages),
        )
        counted[shown] = counted.get(shown, 0) + 1
    ordered = sorted(counted.items(), key=lambda item: -item[1])[:8]
    return [[("runs", numbers.count(number)), *shown] for shown, number in ordered]
