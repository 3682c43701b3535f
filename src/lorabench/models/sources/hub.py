"""Models of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lorabench.core.catalog import RepositoryId, Revision
from lorabench.core.progress import Progress
from lorabench.models.entry import ModelEntry, ModelLocation, Published


class HubModel(ModelEntry):
    """A repository."""

    source: Literal["hub"]
    repository: RepositoryId
    revision: Revision | None = None
    """A commit. Null: unpinned, the newest is taken and the record warns about it."""

    @property
    def pinned(self) -> bool:
        """Whether the catalogue names a commit."""
        return self.revision is not None

    @property
    def origin(self) -> str:
        """The repository."""
        return self.repository

    @property
    def shown_revision(self) -> str:
        """The revision, for people."""
        return self.revision or "unpinned"

    def expected_revision(self) -> str:
        """The commit, where the catalogue names one."""
        return self.revision or "unpinned"

    def present_folder(self) -> Path | None:
        """None: the hub's own cache is looked at when the model is located."""
        return None

    def locate(self, progress: Progress | None = None) -> ModelLocation:
        """Its snapshot in the hub's cache; only what is not there is fetched."""
        from lorabench.models.hub_snapshot import fetch_snapshot

        folder, commit = fetch_snapshot(self.repository, self.revision, gated=self.gated, progress=progress)
        return ModelLocation(self.name, folder, commit, self.info(), Published(self.repository, commit))


SOURCE = HubModel
