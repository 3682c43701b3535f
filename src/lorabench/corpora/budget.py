"""Chooses the documents that a budget in bytes pays for: the same ones for every model and tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.corpora.documents import Document, make_document

_NEARLY_FULL = 0.98


def take_budget(documents: Sequence[Document], max_bytes: int) -> list[Document]:
    """Whole documents in their given order, leaving out those that no longer fit, until the budget is nearly full.

    Where not even one fits, the beginning of the first, cut at a character, so that a budget is never overdrawn; of
    conversations, which are not cut, the shortest.
    """
    chosen: list[Document] = []
    taken = 0
    for document in documents:
        if taken + document.num_bytes <= max_bytes:
            chosen.append(document)
            taken += document.num_bytes
            if taken >= _NEARLY_FULL * max_bytes:
                break
    if not chosen and documents and documents[0].turns is not None:
        chosen.append(min(documents, key=lambda document: document.num_bytes))
    elif not chosen and documents:
        beginning = documents[0].text.encode("utf-8")[:max_bytes].decode("utf-8", errors="ignore").strip()
        if beginning:
            chosen.append(make_document(beginning))
    return chosen
