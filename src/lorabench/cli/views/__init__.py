"""What people see while lorabench runs and when it is done. A run reports to a ProgressView and knows no more."""

from __future__ import annotations

from lorabench.cli.views.outcome import Counts, print_outcome
from lorabench.cli.views.run_page import show_run
from lorabench.cli.views.table import results_table
from lorabench.cli.views.view import Phase, ProgressView, make_view
from lorabench.core.progress import Progress

__all__ = ["Counts", "Phase", "Progress", "ProgressView", "make_view", "print_outcome", "results_table", "show_run"]
