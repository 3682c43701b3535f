"""What a saved adapter says of its base, so that another machine can use it: the base's name, and its tokenizer."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from lorabench.models.entry import ModelLocation

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)


@dataclass(frozen=True)
class BaseReference:
    """How others find the base: the hub's repository and commit, or this machine's folder where no hub has it."""

    name_or_path: str
    revision: str | None
    folder: Path
    """Where it lies here."""

    @classmethod
    def of(cls, location: ModelLocation, named: str = "") -> BaseReference:
        """Of a model on this machine; `named`: the folder that it is to be called by, where another's was copied."""
        if location.published is not None:
            return cls(location.published.repository, location.published.commit, location.folder)
        return cls(named or str(location.folder), None, location.folder)

    def copy_tokenizer(self, folder: Path) -> None:
        """Put the base's tokenizer beside the adapter, so that it is read alike without config.json."""
        for name in TOKENIZER_FILES:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, folder / name)
        settings, is_whole = folder / "tokenizer_config.json", (folder / "tokenizer.json").is_file()
        values = json.loads(settings.read_bytes()) if settings.is_file() else {}
        if is_whole and values.get("tokenizer_class"):
            return
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True, trust_remote_code=False)
        if is_whole:
            values["tokenizer_class"] = type(tokenizer).__name__
            settings.write_text(json.dumps(values, indent=2, sort_keys=True), encoding="utf-8")
        else:
            tokenizer.save_pretrained(folder)
