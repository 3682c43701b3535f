"""The compact table of runs: what was varied, what came out, and which is best of each corpus if one is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from lorabench.record.schema import RunRecord, Status
from lorabench.terminal.text import bits, percent, styled

NARROW = 90
MAX_ROWS_PER_DATASET = 12
_AXES = (
    ("model", "model"),
    ("method", "method"),
    ("rank", "rank"),
    ("alpha", "alpha"),
    ("dropout", "dropout"),
    ("target_modules", "modules"),
    ("learning_rate", "rate"),
    ("batch_size", "batch"),
    ("context_length", "context"),
    ("train_bytes", "text"),
    ("epochs", "epochs"),
    ("schedule", "schedule"),
    ("warmup_ratio", "warm-up"),
    ("weight_decay", "decay"),
    ("max_grad_norm", "clip"),
    ("precision", "precision"),
    ("seed", "seed"),
)

Ties = Mapping[str, Collection[str]]
"""By corpus: the run ids among which no difference to the best can be detected, the best included."""


def results_table(
    records: Sequence[RunRecord], ties: Ties | None = None, *, width: int = 120, max_rows: int = MAX_ROWS_PER_DATASET
) -> Table:
    """Runs by corpus, the best first, with the columns that differ between them.

    With `ties`, the verdicts of the report's analysis, the best of a corpus is marked `best`, or everything that cannot
    be told from it `tie`. Without them the lowest figure is marked `lowest`, which claims no more than it is.
    """
    axes = _varying(records)
    is_narrow = width < NARROW
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ["corpus", *(title for _, title in axes), "bits/byte", "vs base"]:
        table.add_column(name, justify="left" if name in {"corpus", "model", "method", "modules"} else "right")
    for name in [] if is_narrow else ["test", "tokens/s"]:
        table.add_column(name, justify="right")
    table.add_column("", no_wrap=True)
    for dataset in dict.fromkeys(record.spec.dataset for record in records):
        runs = sorted((record for record in records if record.spec.dataset == dataset), key=_order)
        marks = _marks(runs, None if ties is None else ties.get(dataset, ()))
        for record in runs[:max_rows]:
            table.add_row(*_cells(record, [key for key, _ in axes], marks.get(record.run_id, ""), is_narrow))
        if len(runs) > max_rows:
            table.add_row(Text(f"… {len(runs) - max_rows} more", style="dim"))
    return table


def settings_of(record: RunRecord) -> dict[str, Any]:
    """The settings of a run that can be an axis, flat."""
    spec = record.spec
    return (
        {"model": spec.model, "seed": spec.seed}
        | spec.training.model_dump()
        | spec.adapter.model_dump()
        | {"alpha": spec.adapter.alpha_value}
    )


def _varying(records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """The axes with more than one value; alpha is left out where it follows from the rank."""
    settings = [settings_of(record) for record in records]
    varying = [axis for axis in _AXES if len({repr(values[axis[0]]) for values in settings}) > 1]
    if len({repr(record.spec.adapter.alpha) for record in records}) <= 1:
        varying = [axis for axis in varying if axis[0] != "alpha"]
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
    return dict.fromkeys((record.run_id for record in members), "tie" if is_tie else "best")


def _configuration(record: RunRecord) -> str:
    """Everything but the seed."""
    return repr(sorted((settings_of(record) | {"seed": 0}).items()))


def _cells(record: RunRecord, axes: Sequence[str], mark: str, is_narrow: bool) -> list[Text]:
    settings = settings_of(record)
    style = "bold green" if mark in {"best", "lowest"} else "green" if mark == "tie" else ""
    cells = [styled(record.spec.dataset, style, 40)]
    cells += [styled(_short(settings[axis]), style, 40) for axis in axes]
    figure, base = _figure(record), record.base_validation
    cells.append(Text(bits(figure), style=style))
    cells.append(Text(percent(figure / base.bits_per_byte - 1.0) if figure is not None and base is not None else "–"))
    if not is_narrow:
        speed = record.speed.tokens_per_second if record.speed is not None else None
        cells.append(Text(bits(record.test.bits_per_byte if record.test is not None else None)))
        cells.append(Text("–" if speed is None else f"{speed:,.0f}"))
    if not mark and record.status is not Status.COMPLETED:
        return [*cells, Text(record.status.value.replace("_", " "), style="yellow" if _counts(record) else "red")]
    return [*cells, Text(mark, style=style)]


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
