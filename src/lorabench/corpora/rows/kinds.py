"""Which files are read: by the end of their name, which says the format and how they are compressed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Format = Literal["text", "json", "csv", "tsv", "parquet", "arrow"]
Compression = Literal["gzip", "zstd"]
Located = tuple[str, object]
"""Where a row stands, and the row."""

FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".md": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
ACCEPTED = f"{', '.join(FORMATS)}, each also with {' or '.join(COMPRESSIONS)}"


@dataclass(frozen=True)
class Kind:
    """What a file holds."""

    format: Format
    compression: Compression | None = None


def kind_of(path: Path) -> Kind | None:
    """None for files that are not read."""
    *_, before, last = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    if last in COMPRESSIONS and before in FORMATS:
        return Kind(FORMATS[before], COMPRESSIONS[last])
    return Kind(FORMATS[last]) if last in FORMATS else None


def plain_stem(path: Path) -> str:
    """The file's name without what says its kind."""
    kind = kind_of(path)
    return Path(path.stem).stem if kind is not None and kind.compression else path.stem
