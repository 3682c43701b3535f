"""Turns conversations into token ids, with a mark on each token that is part of an answer or ends one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorabench.core.errors import ModelError
from lorabench.corpora.documents import Document
from lorabench.tokens.packing import ANSWER, END_OF_TURN, Marks, Prefix, Tokens
from lorabench.tokens.templates import ChatTemplate, Rendered, read_template
from lorabench.tokens.tokenizer import TOKENIZER_JSON, Tokeniser, essence

_MARK_BITS = 28
"""Above an id's bits, where its mark is kept in the cache of tokens."""


@dataclass(frozen=True)
class Encoded:
    """D documents. Each begins with a token of `prefix`, after which come its tokens [N] and, of a conversation, their
    marks [N]."""

    tokens: list[Tokens]
    prefix: Prefix
    marks: list[Marks] | None = None


class ChatTokeniser:
    """Conversations for one model. Raises ModelError where its tokenizer does not say where in a text its tokens are.

    What a chat template writes is taken as it is, its first token being the one that nothing predicts. Other text
    starts with the tokenizer's prefix, as every text does.
    """

    def __init__(self, tokeniser: Tokeniser, owner: str) -> None:
        self.tokeniser = tokeniser
        self._backend = _without_post_processor(tokeniser)
        end = tokeniser.end_token_id
        eos_token = None if end is None else self._backend.id_to_token(end)
        self.template: ChatTemplate = read_template(tokeniser.folder, owner, eos_token)

    def encode(self, documents: Sequence[Document]) -> Encoded:
        """Ids and marks, kept on disk. Raises ModelError where the answers' tokens are not the answers."""
        key = f"chat-{self.template.sha256[:16]}"
        packed = self.tokeniser.kept(documents, lambda: [self._encode(document) for document in documents], key)
        tokens = [ids & (1 << _MARK_BITS) - 1 for ids in packed]
        marks = [(ids >> _MARK_BITS).astype(np.uint8) for ids in packed]
        return Encoded([ids[1:] for ids in tokens], [int(ids[0]) for ids in tokens], [of_it[1:] for of_it in marks])

    def _encode(self, document: Document) -> Tokens:
        """Ids with their marks above them, int32."""
        rendered = self.template.render(document.turns or ())
        ids, offsets = self._tokens(rendered)
        marks = np.zeros(len(ids), dtype=np.int64)
        for span, value in [
            *((span, END_OF_TURN) for span in rendered.ends),
            *((span, ANSWER) for span in rendered.answers),
        ]:
            marks[_overlapping(offsets, *span)] = value
        for (start, stop), answer in zip(rendered.answers, document.answers, strict=True):
            said = self.tokeniser.decode(ids[_overlapping(offsets, start, stop)].tolist())
            if essence(said) != essence(answer):
                raise ModelError(
                    f"{self.template.owner}: its tokens of the answer {answer[:40]!r} (document {document.hash[:12]}) "
                    f"come back as {said[:40]!r}, so that bits per byte would have no meaning"
                )
        packed: Tokens = (ids | marks << _MARK_BITS).astype(np.int32)
        is_written = self.template.is_own and document.turns is not None and document.turns[-1].role != "continuation"
        if ids[0] == self.tokeniser.prefix_token_id or (is_written and not marks[0]):
            return packed
        return np.concatenate([np.array([self.tokeniser.prefix_token_id], dtype=np.int32), packed])

    def _tokens(self, rendered: Rendered) -> tuple[Any, Any]:
        """Ids [N] and character offsets [N, 2]; cut at the ends of answers where a token would hold words of both."""
        text = rendered.text
        ids, offsets = self._read(text, 0)
        bounds = sorted({place for span in (*rendered.answers, *rendered.ends) for place in span})
        cuts = [place for place in bounds if _is_straddled(text, offsets, place)]
        if not cuts:
            return ids, offsets
        parts = [self._read(text[a:b], a) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _read(self, text: str, start: int) -> tuple[Any, Any]:
        encoding = self._backend.encode(text, add_special_tokens=False)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) + start
        return np.array(encoding.ids, dtype=np.int64), offsets


def encode_documents(tokeniser: Tokeniser, chat: ChatTokeniser | None, documents: Sequence[Document]) -> Encoded:
    """Plain text, or conversations where there is what reads them. Raises ModelError."""
    if chat is not None:
        return chat.encode(documents)
    return Encoded(tokeniser.encode(documents), tokeniser.prefix_token_id)


def _is_straddled(text: str, offsets: Any, place: int) -> bool:
    """Whether a token has characters, other than white space, on both sides."""
    over = offsets[(offsets[:, 0] < place) & (offsets[:, 1] > place)]
    return any(text[start:place].strip() and text[place:stop].strip() for start, stop in over)


def _overlapping(offsets: Any, start: int, stop: int) -> slice:
    """The tokens from the first to the last that have characters of the span."""
    found = np.flatnonzero((offsets[:, 0] < stop) & (offsets[:, 1] > start))
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _without_post_processor(tokeniser: Tokeniser) -> Any:
    """The tokenizer, saying of every token where it is: some leave white space out of what they say."""
    path = tokeniser.folder / TOKENIZER_JSON
    try:
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise ModelError(
            f"{tokeniser.folder}: conversations need a tokenizer.json, which says where in a text each token is; save "
            "one with AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        ) from None
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(json.dumps(settings | {"post_processor": None}))
    backend.no_truncation()
    backend.no_padding()
    return backend
