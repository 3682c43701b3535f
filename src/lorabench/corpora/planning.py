"""What a plan needs to know of a corpus, from the catalogue and cached manifests; a catalogue corpus is not read."""

from __future__ import annotations

from dataclasses import dataclass

from lorabench.corpora.references import CorpusReference
from lorabench.corpora.store import load_corpus, read_corpus_info, request_corpus

HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class DatasetPlan:
    """A corpus before it is read."""

    reference: str | CorpusReference
    """As the experiment names it."""
    name: str
    revision: str
    pinned: bool
    contaminates: tuple[str, ...]
    missing_bytes: int
    """To fetch before it can be used."""
    num_bytes: dict[str, int]
    """By split: of the prepared corpus, else about."""
    kept_bytes: int
    """Of text, all splits together, that is kept on the disk: of a hub corpus only what was drawn."""
    prepared: bool

    def disk_bytes(self, num_models: int) -> int:
        """Of the prepared corpus and its tokens for so many models, about: a token takes the room of its text."""
        return (1 + num_models) * self.kept_bytes

    def bytes_within(self, split: str, budget: int) -> int:
        """Bytes of a split that a budget pays for."""
        return min(budget, self.num_bytes[split])


def plan_dataset(reference: str | CorpusReference, text_field: str, max_train_bytes: int) -> DatasetPlan:
    """Look a corpus up. A local file is read and checked here, so that a mistake in it is found before anything runs.

    Raises UnknownNameError or DataError.
    """
    request = request_corpus(reference, max_train_bytes=max_train_bytes, text_field=text_field)
    info = read_corpus_info(reference, max_train_bytes=max_train_bytes, text_field=text_field)
    if request.entry is None and info is None:
        info = load_corpus(reference, max_train_bytes=max_train_bytes, text_field=text_field).info
    if info is not None:
        return DatasetPlan(
            reference=reference,
            name=request.name,
            revision=request.revision,
            pinned=info.pinned,
            contaminates=info.contaminates,
            missing_bytes=0,
            num_bytes=info.num_bytes,
            kept_bytes=sum(info.num_bytes.values()),
            prepared=True,
        )
    entry = request.entry
    assert entry is not None
    held_out = round(HELD_OUT_SHARE * entry.approximate_bytes)
    return DatasetPlan(
        reference=reference,
        name=request.name,
        revision=request.revision,
        pinned=entry.pinned,
        contaminates=entry.contaminates,
        missing_bytes=entry.bytes_to_fetch(request.max_bytes),
        num_bytes={
            "train": entry.approximate_bytes - 2 * held_out,
            "validation": held_out,
            "test": held_out,
        },
        kept_bytes=entry.bytes_drawn(request.max_bytes),
        prepared=False,
    )
