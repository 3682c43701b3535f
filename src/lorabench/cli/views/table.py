"""The compact table of runs: what was varied, what came out, and which is best of each corpus if one is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from lorabench.analysis.statistics import Interval
from lorabench.cli.views.text import percent, styled
from lorabench.core.formatting import NONE, alike, count, setting
from lorabench.records.columns import CHANGE, COLUMNS, SETTINGS, Setting, axis_values
from lorabench.records.schema import RunRecord, Status

NARROW = 90
MAX_ROWS_PER_DATASET = 12
_AXES = tuple(item for item in SETTINGS if item.is_axis or item.key == "seed")
_WIDE = (COLUMNS["test_bits_per_byte"], COLUMNS["tokens_per_second"])

Ties = Mapping[str, Collection[str]]
"""By corpus: the run ids among which no difference to the best can be detected, the best included."""


def results_table(
    records: Sequence[RunRecord],
    ties: Ties | None = None,
    intervals: Mapping[str, Interval] | None = None,
    *,
    width: int = 120,
    max_rows: int = MAX_ROWS_PER_DATASET,
) -> Table:
    """Runs by corpus, the best first, with the columns that differ between them.

    With `ties`, the verdicts of the report's analysis, the best of a corpus is marked `best`, or everything that may be
    the best `tie`. Without them, or with one seed, the lowest figure is marked `lowest`, which claims no more than it
    is. Figures have the digits that `intervals`, by run id, support.
    """
    axes = _varying(records)
    is_narrow = width < NARROW
    table = Table(box=None, pad_edge=False, header_style="dim")
    texts = {COLUMNS[key].short_title for key in ("dataset", "model", "method", "target_modules")}
    titles = [COLUMNS["dataset"].short_title, *(axis.short_title for axis in axes)]
    for name in [*titles, COLUMNS["val_bits_per_byte"].unit, CHANGE.short_title]:
        table.add_column(name, justify="left" if name in texts else "right")
    for column in () if is_narrow else _WIDE:
        table.add_column(column.short_title, justify="right")
    table.add_column("", no_wrap=True)
    for dataset in dict.fromkeys(record.spec.dataset for record in records):
        runs = sorted((record for record in records if record.spec.dataset == dataset), key=_order)
        marks = _marks(runs, None if ties is None else ties.get(dataset, ()))
        for record in runs[:max_rows]:
            interval = (intervals or {}).get(record.run_id)
            table.add_row(*_cells(record, axes, marks.get(record.run_id, ""), interval, is_narrow))
        if len(runs) > max_rows:
            table.add_row(Text(f"… {len(runs) - max_rows} more", style="dim"))
    return table


def _varying(records: Sequence[RunRecord]) -> list[Setting]:
    """The axes with more than one value; alpha is left out where it follows from the rank."""
    varying = [axis for axis in _AXES if len({axis.show(record.spec) for record in records} - {None}) > 1]
    if len({record.spec.adapter.alpha for record in records}) <= 1:
        varying = [axis for axis in varying if axis.key != "alpha"]
    return varying


def _figure(record: RunRecord) -> float | None:
    return None if record.validation is None else record.validation.bits_per_byte


def _order(record: RunRecord) -> tuple[bool, float, str]:
    figure = _figure(record)
    return figure is None or not _counts(record), figure if figure is not None else 0.0, record.run_id


def _counts(record: RunRecord) -> bool:
    return record.status in {Status.COMPLETED, Status.STOPPED_EARLY}


def _marks(runs: Sequence[RunRecord], tied: Collection[str] | None) -> dict[str, str]:
    """The mark of each run of one corpus; a single configuration, however many its seeds, is the best of nothing."""
    comparable = [record for record in runs if _counts(record) and _figure(record) is not None]
    if len({_configuration(record) for record in comparable}) < 2:
        return {}
    if tied is None:
        lowest = _figure(comparable[0])
        return {record.run_id: "lowest" for record in comparable if _figure(record) == lowest}
    members = [record for record in comparable if record.run_id in tied]
    is_tie = len({_configuration(record) for record in members}) > 1
    alone = "best" if len(members) > 1 else "lowest"
    return dict.fromkeys((record.run_id for record in members), "tie" if is_tie else alone)


def _configuration(record: RunRecord) -> str:
    """Everything but the seed."""
    return repr(axis_values(record.spec))


def _cells(
    record: RunRecord, axes: Sequence[Setting], mark: str, interval: Interval | None, is_narrow: bool
) -> list[Text]:
    style = "bold green" if mark == "best" else "bold" if mark else ""
    cells = [styled(record.spec.dataset, style, 40)]
    values = [axis.show(record.spec) for axis in axes]
    cells += [styled(NONE if value is None else setting(value), style, 40) for value in values]
    change = CHANGE.read(record)
    cells.append(Text(alike(_figure(record), interval), style=style))
    cells.append(Text(percent(change) if isinstance(change, float) else NONE))
    if not is_narrow:
        speed = record.speed.tokens_per_second if record.speed is not None else None
        cells.append(Text(alike(record.test.bits_per_byte if record.test is not None else None, interval)))
        cells.append(Text(count(speed)))
    if not mark and record.status is not Status.COMPLETED:
        return [*cells, Text(record.status.value.replace("_", " "), style="yellow" if _counts(record) else "red")]
    return [*cells, Text(mark, style=style)]
