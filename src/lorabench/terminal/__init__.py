"""What people see while lorabench runs and when it is done. The pipeline talks to a ProgressView and knows no more."""

from __future__ import annotations

from lorabench.terminal.outcome import Counts, print_outcome
from lorabench.terminal.run_page import show_run
from lorabench.terminal.table import results_table
from lorabench.terminal.view import Phase, Progress, ProgressView, make_view

__all__ = ["Counts", "Phase", "Progress", "ProgressView", "make_view", "print_outcome", "results_table", "show_run"]
