"""The figures that findings have data for. What a candidate is compared with, and how it came out, the findings say."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from lorabench.analysis.findings import Candidate, CorpusFindings, Cost, EfficiencyPoint, Findings, Verdict
from lorabench.analysis.statistics import Interval
from lorabench.formatting import bits, count, number, shorten, signed_bits, size, span
from lorabench.report.picture import Kind, Matrix, Panel, Picture, Point, Series

BITS_TITLE = "validation bits per byte"
MAX_NAME = 26
_DODGE = 1.04


def make_pictures(findings: Findings) -> dict[str, Picture]:
    """Every figure that the findings have data for, by name."""
    colours = {model.name: index for index, model in enumerate(findings.overview.models)}
    made = (
        _models(findings, colours),
        _ranks_and_rates(findings),
        _costs(findings, colours),
        _gains(findings, colours),
        _drift(findings),
        _lengths(findings, colours),
    )
    return {picture.name: picture for picture in made if picture.panels}


def _point(x: float, interval: Interval, *lines: str) -> Point:
    return Point(x, interval.estimate, interval.low, interval.high, lines)


def _models(findings: Findings, colours: dict[str, int]) -> Picture:
    """Each model's mean over the shared corpora."""
    hierarchy = findings.hierarchy
    ranked = [(item, item.mean_bits_per_byte) for item in hierarchy.ranking if item.mean_bits_per_byte is not None]
    series = tuple(
        Series(
            item.model,
            colours.get(item.model, index),
            (Point(mean.estimate, index, mean.low, mean.high, (item.model, bits(mean.estimate), span(mean))),),
        )
        for index, (item, mean) in enumerate(ranked)
        if mean is not None
    )
    ticks = tuple((float(index), shorten(item.model, MAX_NAME)) for index, (item, _) in enumerate(ranked))
    sentence = f"Mean over {len(hierarchy.corpora)} corpora, with 95 % intervals; lower is better"
    panel = Panel("all models", sentence, Kind.ROWS, f"mean {BITS_TITLE}", "", series, ticks=ticks)
    return Picture("models", "Base models over all shared corpora", (panel,) if len(series) > 1 else (), (), ())


def _ranks_and_rates(findings: Findings) -> Picture:
    """Each rank over the learning rates, for every model and corpus with more than one of either."""
    panels, rows = [], []
    claims = {(item.corpus, item.model): item.claim for item in (*findings.learning_rates, *findings.ranks)}
    for corpus in findings.corpora:
        for model in dict.fromkeys(item.model for item in corpus.candidates):
            cells = _best_of_cells(item for item in corpus.candidates if item.model == model)
            if len(cells) < 2:
                continue
            sentence = claims.get((corpus.label, model), "")
            panels.append(_rank_panel(f"{corpus.label} · {model}", sentence, cells))
            rows += [
                (corpus.label, model, rank, f"{rate:g}", bits(item.bits_per_byte.estimate), span(item.bits_per_byte))
                for (rank, rate), item in sorted(cells.items(), key=lambda cell: _cell_order(cell[0]))
            ]
    columns = ("corpus", "model", "rank", "learning rate", "bits/byte", "95 % interval")
    return Picture("rank_by_learning_rate", "Rank and learning rate", tuple(panels), columns, tuple(rows))


def _best_of_cells(candidates: Iterable[Candidate]) -> dict[tuple[str, float], Candidate]:
    """By rank and learning rate the lowest; candidates come lowest first."""
    cells: dict[tuple[str, float], Candidate] = {}
    for item in candidates:
        rate, rank = item.settings.get("learning_rate"), item.settings.get("rank")
        if isinstance(rate, int | float):
            cells.setdefault((str(rank) if rank is not None else str(item.settings.get("method")), rate), item)
    return cells


def _cell_order(cell: tuple[str, float]) -> tuple[bool, float, str, float]:
    rank, rate = cell
    return not rank.isdecimal(), float(rank) if rank.isdecimal() else 0.0, rank, rate


def _rank_panel(label: str, sentence: str, cells: dict[tuple[str, float], Candidate]) -> Panel:
    """Over the learning rates a line for each rank; with one rate only, over the ranks."""
    order = sorted(cells, key=_cell_order)
    ranks = list(dict.fromkeys(rank for rank, _ in order))
    rates = sorted({rate for _, rate in order})
    if len(rates) == 1:
        points = tuple(
            _point(position, cells[rank, rates[0]].bits_per_byte, *_about(cells[rank, rates[0]]))
            for position, rank in enumerate(ranks)
        )
        ticks = tuple((float(position), rank) for position, rank in enumerate(ranks))
        series = (Series(f"rate {rates[0]:g}", 0, points),)
        return Panel(label, sentence, Kind.LINES, "rank", BITS_TITLE, series, ticks=ticks)
    lines = []
    for index, rank in enumerate(ranks):
        shift = _DODGE ** (index - (len(ranks) - 1) / 2)
        points = tuple(
            _point(rate * shift, cells[rank, rate].bits_per_byte, *_about(cells[rank, rate]))
            for rate in rates
            if (rank, rate) in cells
        )
        lines.append(Series(f"rank {rank}" if rank.isdecimal() else rank, index, points))
    ticks = tuple((rate, f"{rate:g}") for rate in rates)
    return Panel(label, sentence, Kind.LINES, "learning rate", BITS_TITLE, tuple(lines), is_log_x=True, ticks=ticks)


def _about(candidate: Candidate) -> tuple[str, ...]:
    seeds = f"{len(candidate.seeds)} seed{'s' if len(candidate.seeds) != 1 else ''}"
    estimate = candidate.bits_per_byte
    return candidate.label, f"{bits(estimate.estimate)} ({span(estimate)})", seeds


_COSTS: tuple[tuple[str, str, float, Callable[[Cost], float | None], Callable[[EfficiencyPoint], bool]], ...] = (
    ("speed", "bytes of text trained on per second", 1.0, lambda c: c.bytes_per_second, lambda p: p.on_speed_front),
    ("memory", "peak memory (MB)", 1e-6, lambda c: c.peak_memory_bytes, lambda p: p.on_memory_front),
    ("adapter size", "adapter (MB)", 1e-6, lambda c: c.adapter_bytes, lambda p: p.on_size_front),
)


def _costs(findings: Findings, colours: dict[str, int]) -> Picture:
    """Quality against what it costs, within one corpus, hardware and precision."""
    candidates = {item.key: item for corpus in findings.corpora for item in corpus.candidates}
    by_place: dict[tuple[str, str, str], list[EfficiencyPoint]] = {}
    for point in findings.efficiency:
        by_place.setdefault((point.corpus, point.hardware, point.precision), []).append(point)
    has_one_place = len({place[1:] for place in by_place}) <= 1
    panels: list[Panel] = []
    for place, points in by_place.items():
        where = place[0] if has_one_place else " · ".join(place)
        for name, title, factor, read, is_on_front in _COSTS:
            known = [(value * factor, point) for point in points if (value := read(point.cost)) is not None]
            if len(known) > 1:
                series = _cost_series(known, is_on_front, candidates, colours, rising=name == "speed")
                sentence = (
                    f"Quality against {name}; the line joins what nothing beats in both. Lower bits per byte are better"
                )
                panels.append(Panel(f"{where} · {name}", sentence, Kind.POINTS, title, BITS_TITLE, series))
    on_front = [p for p in findings.efficiency if p.on_speed_front or p.on_memory_front or p.on_size_front]
    columns = ("corpus", "configuration", "bits/byte", "tokens/s", "peak memory", "adapter", "on the front of")
    rows = tuple(_cost_row(point, candidates[point.candidate]) for point in on_front)
    return Picture("quality_by_cost", "Quality against cost", tuple(panels), columns, rows)


def _cost_series(
    known: Sequence[tuple[float, EfficiencyPoint]],
    is_on_front: Callable[[EfficiencyPoint], bool],
    candidates: dict[str, Candidate],
    colours: dict[str, int],
    *,
    rising: bool,
) -> tuple[Series, ...]:
    by_model: dict[str, list[Point]] = {}
    for x, point in known:
        candidate = candidates[point.candidate]
        lines = (candidate.label, bits(point.bits_per_byte), _cost_text(point.cost))
        by_model.setdefault(candidate.model, []).append(Point(x, point.bits_per_byte, lines=lines))
    front = sorted((x, point.bits_per_byte) for x, point in known if is_on_front(point))
    if rising:
        front.reverse()
    series = [Series(model, colours.get(model, 0), tuple(points)) for model, points in by_model.items()]
    if len(front) > 1:
        series.append(Series("Pareto front", -1, tuple(Point(x, y) for x, y in front), is_front=True))
    return tuple(series)


def _cost_text(cost: Cost) -> str:
    speed = f"{count(cost.tokens_per_second)} tokens/s"
    return f"{speed} · {size(cost.peak_memory_bytes)} · adapter {size(cost.adapter_bytes)}"


def _cost_row(point: EfficiencyPoint, candidate: Candidate) -> tuple[str, ...]:
    fronts = (("speed", point.on_speed_front), ("memory", point.on_memory_front), ("size", point.on_size_front))
    cost = point.cost
    return (
        point.corpus,
        candidate.label,
        bits(point.bits_per_byte),
        count(cost.tokens_per_second),
        size(cost.peak_memory_bytes),
        size(cost.adapter_bytes),
        ", ".join(name for name, is_on in fronts if is_on),
    )


def _gains(findings: Findings, colours: dict[str, int]) -> Picture:
    """What the best configuration of each model gains over the untouched base, by corpus."""
    found = [
        (position, corpus, item, item.gain)
        for position, corpus in enumerate(findings.corpora)
        for item in _first_of_each_model(corpus)
        if item.gain is not None
    ]
    series = [
        Series(
            model,
            colours.get(model, index),
            tuple(
                _point(position, gain, item.label, corpus.label, f"{signed_bits(gain.estimate)} ({span(gain)})")
                for position, corpus, item, gain in found
                if item.model == model
            ),
        )
        for index, model in enumerate(dict.fromkeys(item.model for _, _, item, _ in found))
    ]
    ticks = tuple((float(i), shorten(corpus.label, MAX_NAME)) for i, corpus in enumerate(findings.corpora))
    title = "bits per byte below the base"
    sentence = "What the best configuration of each model gains over its own base on validation text; higher is better"
    panel = Panel("all corpora", sentence, Kind.BARS, "", title, tuple(series), ticks=ticks)
    rows = tuple(
        (
            corpus.label,
            item.label,
            bits(item.base_bits_per_byte),
            bits(item.bits_per_byte.estimate),
            bits(gain.estimate),
            span(gain),
        )
        for _, corpus, item, gain in found
    )
    columns = ("corpus", "configuration", "base", "adapted", "gain", "95 % interval of the gain")
    return Picture("gain_over_base", "Gain over the base", (panel,) if series else (), columns, rows)


def _first_of_each_model(corpus: CorpusFindings) -> list[Candidate]:
    first: dict[str, Candidate] = {}
    for item in corpus.candidates:
        first.setdefault(item.model, item)
    return list(first.values())


def _drift(findings: Findings) -> Picture:
    """What adapters cost on corpora they were not trained on."""
    panels = []
    for model, cells in itertools.groupby(sorted(findings.drift, key=lambda c: c.model), key=lambda c: c.model):
        by_place = {(cell.trained_on, cell.scored_on): cell for cell in cells}
        rows = tuple(sorted({trained for trained, _ in by_place}, key=lambda name: _place(name, findings)))
        columns = tuple(sorted({scored for _, scored in by_place}, key=lambda name: _place(name, findings)))
        grid = [[by_place.get((row, column)) for column in columns] for row in rows]
        panels.append(
            Matrix(
                model,
                "Change of bits per byte against the base; above zero the adapter made the model worse there",
                "scored on",
                "trained on",
                tuple(shorten(row, MAX_NAME) for row in rows),
                tuple(shorten(column, MAX_NAME) for column in columns),
                tuple(tuple(cell.change.estimate if cell else None for cell in line) for line in grid),
                tuple(tuple(signed_bits(cell.change.estimate) if cell else "" for cell in line) for line in grid),
                tuple(
                    tuple(
                        (f"{cell.trained_on} → {cell.scored_on}", span(cell.change, is_signed=True), cell.verdict.value)
                        if cell
                        else ()
                        for cell in line
                    )
                    for line in grid
                ),
            )
        )
    words = {Verdict.LOWER: "better", Verdict.HIGHER: "worse"}
    rows_shown = tuple(
        (
            cell.model,
            cell.trained_on,
            cell.scored_on,
            bits(cell.base_bits_per_byte),
            bits(cell.bits_per_byte),
            signed_bits(cell.change.estimate),
            span(cell.change, is_signed=True),
            words.get(cell.verdict, cell.verdict.value),
        )
        for cell in findings.drift
    )
    shown = ("model", "trained on", "scored on", "base", "adapted", "change", "95 % interval", "verdict")
    return Picture("drift", "Drift on other corpora", tuple(panels), shown, rows_shown)


def _place(name: str, findings: Findings) -> tuple[int, str]:
    """Corpora in the order of the findings, then any others by name."""
    labels = [corpus.label for corpus in findings.corpora]
    return (labels.index(name) if name in labels else len(labels)), name


def _lengths(findings: Findings, colours: dict[str, int]) -> Picture:
    """Bits per byte by the length of the document."""
    panels = []
    for corpus in dict.fromkeys(bucket.corpus for bucket in findings.length_buckets):
        buckets = [bucket for bucket in findings.length_buckets if bucket.corpus == corpus]
        bounds = sorted({(bucket.low_bytes, bucket.high_bytes) for bucket in buckets})
        series = []
        for model in dict.fromkeys(bucket.model for bucket in buckets):
            own = [bucket for bucket in buckets if bucket.model == model]
            for name, is_base in ((model, False), (f"{model}, base", True)):
                points = tuple(
                    Point(
                        bounds.index((item.low_bytes, item.high_bytes)),
                        figure,
                        lines=(
                            name,
                            f"{bits(figure)} on {count(item.num_documents)} documents",
                            f"of {size(item.low_bytes)} to {size(item.high_bytes)}",
                        ),
                    )
                    for item in own
                    if (figure := item.base_bits_per_byte if is_base else item.bits_per_byte) is not None
                )
                if points:
                    series.append(Series(name, colours.get(model, 0), points, is_dashed=is_base))
        ticks = tuple((float(i), size(high)) for i, (_, high) in enumerate(bounds))
        sentence = "The best configuration of each model, and its base, by the length of the document"
        if len(bounds) > 1:
            panels.append(
                Panel(corpus, sentence, Kind.LINES, "documents up to", BITS_TITLE, tuple(series), ticks=ticks)
            )
    rows = tuple(
        (
            item.corpus,
            item.model,
            f"{size(item.low_bytes)} to {size(item.high_bytes)}",
            count(item.num_documents),
            bits(item.base_bits_per_byte),
            bits(item.bits_per_byte),
            number(item.perplexity),
        )
        for item in findings.length_buckets
    )
    columns = ("corpus", "model", "document", "documents", "base bits/byte", "bits/byte", "perplexity")
    return Picture("document_length", "By document length", tuple(panels), columns, rows)
