"""What a column of a table is: a name, what people call it, and how its values are read and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from lorabench.records.schema import RunRecord

Value = str | int | float | None


class Form(StrEnum):
    """How values are written."""

    TEXT = "text"
    COUNT = "count"
    """A whole number: 1,234."""
    BITS = "bits"
    """Four decimals: 0.1234."""
    NUMBER = "number"
    """Four significant digits."""
    PERCENT = "percent"


@dataclass(frozen=True)
class Column:
    """Something of a run that tables show."""

    key: str
    """Its name in the CSV and in the trackers."""
    title: str
    """What people call it: in sentences and where there is room."""
    read: Callable[[RunRecord], Value]
    """None where the run has none."""
    form: Form = Form.TEXT
    short: str = ""
    """Its title in narrow tables; empty: the title."""
    unit: str = ""
    is_better: str = ""
    """`lower` or `higher` of a figure that is better so; empty: neither."""
    decimals: int | None = None
    """Where a narrow table rounds more than the form does."""

    @property
    def short_title(self) -> str:
        """For narrow tables."""
        return self.short or self.title
