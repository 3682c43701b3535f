"""Prints what an experiment would take on devices that are not here."""

from __future__ import annotations

from lorabench.cli.views.rows import wide_console
from lorabench.core.formatting import duration, rough_size
from lorabench.experiment.estimates import CARD_SHARES
from lorabench.runs.elsewhere import Elsewhere


def print_elsewhere(found: Elsewhere, price: float | None) -> None:
    """Hours, money, disk, and what the estimate assumes."""
    card, devices = found.card, f"{found.num_devices} × {found.card.name}"
    lines = [f"on {devices}: about {duration(found.seconds)}, {found.device_hours:,.1f} device hours"]
    if found.cost is not None:
        lines[0] += f", {found.cost:,.2f} at {price:,.2f} a device hour"
    lines[0] += f"; {rough_size(found.disk_bytes)} of disk"
    lines.append(f"no order of the runs takes less than {duration(found.least_seconds)} there")
    rate = card.bf16_rate or card.fp32_rate
    lines.append(
        f"an estimate: products at {CARD_SHARES['products']:.0%} of the published {rate / 1e12:,.3g} TFLOP/s, "
        f"all else at {CARD_SHARES['memory']:.0%} of {card.bytes_per_second / 1e12:,.3g} TB/s; no run has been timed"
    )
    for line in lines:
        wide_console().print(line, soft_wrap=True, markup=False, highlight=False)
