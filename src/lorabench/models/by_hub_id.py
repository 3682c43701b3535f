"""Models of the hub by their id, `owner/name` or `owner/name@revision`, without an entry in a catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lorabench.core.catalog import HUB_ID, FromHub
from lorabench.core.errors import ModelError
from lorabench.core.hub import Repository
from lorabench.core.progress import Progress
from lorabench.models.catalog import entries_of
from lorabench.models.entry import ModelLocation, ModelSource, Published
from lorabench.models.hub_metadata import HubMetadata, cached_snapshot, read_metadata
from lorabench.models.shape import ModelShape
from lorabench.models.text_part import require_decoder, text_config


def is_hub_id(reference: str) -> bool:
    """Whether a reference has the form of a hub id. Whether there is a folder of that name is not looked at."""
    return HUB_ID.fullmatch(reference) is not None


class HubIdModel(FromHub, ModelSource):
    """A repository that no catalogue describes: what a plan needs is asked of the hub. It is called by its id."""

    source: Literal["hub"] = "hub"

    @classmethod
    def of(cls, reference: str) -> HubIdModel:
        """The model of a hub id. Raises ModelError for what is no model that is read, DownloadError."""
        found = HUB_ID.fullmatch(reference)
        if found is None:
            raise ModelError(f"{reference}: should be owner/name or owner/name@revision")
        metadata = read_metadata(Repository("model", found["repository"], found["revision"]))
        require_decoder(metadata.config, f"model {reference}")
        known = entries_of(found["repository"])
        return cls.model_construct(  # without validation, as names of catalogue entries are stricter
            name=reference,
            repository=found["repository"],
            revision=found["revision"],
            family=str(text_config(metadata.config).get("model_type", "unknown")),
            licence=metadata.licence or next((entry.licence for entry in known), None),
            gated=metadata.gated or any(entry.gated for entry in known),
            download_bytes=metadata.download_bytes,
        )

    def metadata(self) -> HubMetadata:
        """What the hub says, or said when it was last asked. Raises ModelError or DownloadError."""
        return read_metadata(Repository("model", self.repository, self.revision))

    def config_json(self) -> dict[str, Any]:
        """As the hub has it."""
        return self.metadata().config

    def present_folder(self) -> Path | None:
        """Its snapshot in the hub's cache, where that is whole."""
        return cached_snapshot(Repository("model", self.repository, self.revision), self.metadata().commit)

    def model_shape(self) -> ModelShape:
        """From config.json and the headers of the weights on the hub."""
        return self.metadata().model_shape(f"model {self.name}")

    def locate(self, progress: Progress | None = None) -> ModelLocation:
        """Its snapshot in the hub's cache; only what is not there is fetched."""
        from lorabench.models.hub_snapshot import fetch_snapshot

        folder, commit = fetch_snapshot(self.repository, self.revision, gated=self.gated, progress=progress)
        return ModelLocation(self.name, folder, commit, self.info(), Published(self.repository, commit))
