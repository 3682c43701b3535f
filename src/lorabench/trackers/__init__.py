"""Where a run's figures go while it runs: always to metrics.jsonl, and to the trackers that the user chose."""

from __future__ import annotations
