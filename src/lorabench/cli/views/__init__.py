"""What people see while lorabench runs and when it is done. Runs know `runs.view` alone."""

from __future__ import annotations

from lorabench.cli.views.outcome import print_outcome
from lorabench.cli.views.run_page import show_run
from lorabench.cli.views.table import results_table
from lorabench.cli.views.view import Phase, ProgressView, make_view

__all__ = ["Phase", "ProgressView", "make_view", "print_outcome", "results_table", "show_run"]
