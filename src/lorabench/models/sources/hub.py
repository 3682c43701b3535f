"""Models of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lorabench.core.catalog import FromHub
from lorabench.core.progress import Progress
from lorabench.models.entry import ModelEntry, ModelLocation, Published


class HubModel(FromHub, ModelEntry):
    """A repository."""

    source: Literal["hub"]

    def present_folder(self) -> Path | None:
        """None: the hub's own cache is looked at when the model is located."""
        return None

    def locate(self, progress: Progress | None = None) -> ModelLocation:
        """Its snapshot in the hub's cache; only what is not there is fetched."""
        from lorabench.models.hub_snapshot import fetch_snapshot

        folder, commit = fetch_snapshot(self.repository, self.revision, gated=self.gated, progress=progress)
        return ModelLocation(self.name, folder, commit, self.info(), Published(self.repository, commit))


SOURCE = HubModel
