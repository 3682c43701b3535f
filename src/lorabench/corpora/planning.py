"""What a plan needs to know of a corpus, from the catalogue and cached manifests; a catalogue corpus is not read."""

from __future__ import annotations

from dataclasses import dataclass

from lorabench.corpora.catalog import find_corpus
from lorabench.corpora.references import CorpusReference
from lorabench.corpora.store import corpus_revision, load_prepared, read_corpus_info

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
    num_validation_documents: int | None = None
    """None where it is not known yet."""
    validation_lengths: tuple[int, ...] = ()
    """Bytes of validation documents, evenly chosen; none where they are not known yet."""
    format: str | None = None
    """Of its rows; None where it is not known yet."""

    notes: str | None = None
    """Of files of one's own that were read: what was found in them, and how they were read."""

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
    source = find_corpus(reference, text_field=text_field, max_train_bytes=max_train_bytes)
    info = read_corpus_info(source, max_train_bytes=max_train_bytes)
    if info is None and source.read_by_plans:
        info = load_prepared(source, max_train_bytes=max_train_bytes).info
    max_bytes = source.bytes_to_read(max_train_bytes)
    held_out = round(HELD_OUT_SHARE * source.approximate_bytes)
    expected = {"train": source.approximate_bytes - 2 * held_out, "validation": held_out, "test": held_out}
    return DatasetPlan(
        reference=source.pinned_reference(reference),
        name=source.name,
        revision=corpus_revision(source),
        pinned=source.pinned if info is None else info.pinned,
        contaminates=source.contaminates,
        missing_bytes=source.bytes_to_fetch(max_bytes) if info is None else 0,
        num_bytes=expected if info is None else info.num_bytes,
        kept_bytes=source.bytes_drawn(max_bytes) if info is None else sum(info.num_bytes.values()),
        prepared=info is not None,
        num_validation_documents=None if info is None else info.num_documents["validation"],
        validation_lengths=() if info is None else info.validation_lengths,
        format=source.expected_format() if info is None else info.format,
        notes=info.notes if info is not None and source.read_by_plans else None,
    )
