"""Where a run's figures go while it runs: always to metrics.jsonl, and to the trackers that the user asked for."""

from __future__ import annotations
