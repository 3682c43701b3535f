"""Turns documents into token ids, once per tokenizer and text: in parallel, and kept on disk.

The `tokenizers` library does the work; Transformers is asked only where a folder has no tokenizer.json. No special
tokens are added here: what starts a window is the packing's business, with `prefix_token_id`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lorabench.core.errors import DiskError, ModelError
from lorabench.core.locks import exclusively
from lorabench.core.storage import cache_root, read_regular, set_aside, write_atomically
from lorabench.corpora.documents import Document

TOKENIZER_JSON = "tokenizer.json"
OTHER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")
BATCH_BYTES = 2_000_000
NUM_CHECKED = 32
"""Documents whose tokens are turned back into text, to see that nothing is lost."""
MAX_CHECKED_TOKENS = 20_000
MIN_KEPT_SHARE = 0.9
_DIGEST_BYTES = 32

_LOG = logging.getLogger(__name__)
_SPACE = re.compile(r"\s+")

Tokens = npt.NDArray[np.int32]


class Tokeniser:
    """The tokenizer of a model folder.

    `sha256` is that of its files, `prefix_token_id` the token that starts every window: BOS, or EOS where there is no
    BOS. `model_folder` is the model's where the tokenizer lies elsewhere, as an adapter's own does. Raises ModelError
    where there is no tokenizer, or neither token.
    """

    def __init__(self, folder: Path, model_folder: Path | None = None) -> None:
        self.folder = folder
        self.sha256 = _hash_files(folder)
        self._backend: Any = _load(folder)
        self._config = read_json((model_folder or folder) / "config.json")
        self.prefix_token_id = self._find_prefix()

    def encode(self, documents: Sequence[Document], progress: Callable[[int, int], None] | None = None) -> list[Tokens]:
        """Token ids of each document, int32. Told progress: (bytes done, bytes in all).

        Raises ModelError where the tokenizer gives nothing for a document, loses text, or does not fit the model. That
        nothing is lost is true of the tokenizer, and is checked once; that its tokens fit is true of this model alone.
        """

        def make() -> list[Tokens]:
            made = list(self._encode(documents, progress))
            self._check(documents, made)
            return made

        tokens = self.kept(documents, make)
        self._check_fit(int(np.concatenate([*tokens, np.zeros(1, dtype=np.int32)]).max()))
        return tokens

    def kept(self, documents: Sequence[Document], make: Callable[[], list[Tokens]], kind: str = "") -> list[Tokens]:
        """What `make` gives for these documents, kept on disk; `kind` tells it from other things made of them.

        Of several processes one makes it. A cache that cannot be written is done without.
        """
        path = self._cache_path(documents, kind)
        tokens = _read(path, len(documents))
        if tokens is not None:
            return tokens
        with ExitStack() as stack:
            with suppress(DiskError):
                stack.enter_context(exclusively(path.with_suffix("")))
            tokens = _read(path, len(documents))
            if tokens is None:
                tokens = make()
                _write(path, tokens)
            return tokens

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        if self._is_fast:
            return str(self._backend.decode(list(ids), skip_special_tokens=False))
        return str(self._backend.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @property
    def _is_fast(self) -> bool:
        from tokenizers import Tokenizer

        return isinstance(self._backend, Tokenizer)

    def _encode(self, documents: Sequence[Document], progress: Callable[[int, int], None] | None) -> Iterator[Tokens]:
        total = sum(document.num_bytes for document in documents)
        done = 0
        for batch in _batches(documents):
            texts = [document.text for document in batch]
            if self._is_fast:
                encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
                yield from (np.array(encoding.ids, dtype=np.int32) for encoding in encodings)
            else:
                rows = self._backend(texts, add_special_tokens=False)["input_ids"]
                yield from (np.array(ids, dtype=np.int32) for ids in rows)
            done += sum(document.num_bytes for document in batch)
            if progress is not None:
                progress(done, total)

    def _check(self, documents: Sequence[Document], tokens: Sequence[Tokens]) -> None:
        for document, ids in zip(documents, tokens, strict=True):
            if len(ids) == 0 and document.num_bytes:
                raise ModelError(
                    f"{self.folder}: its tokenizer gives no token for document {document.hash[:12]} "
                    f"({document.text[:40]!r})"
                )
        short = [index for index, ids in enumerate(tokens) if len(ids) <= MAX_CHECKED_TOKENS]
        checked = short[:: max(1, len(short) // NUM_CHECKED)][:NUM_CHECKED]
        lost = [i for i in checked if essence(self.decode(tokens[i].tolist())) != essence(documents[i].text)]
        if len(lost) > (1 - MIN_KEPT_SHARE) * len(checked):
            raise ModelError(
                f"{self.folder}: its tokenizer loses text ({documents[lost[0]].text[:40]!r} comes back as "
                f"{self.decode(tokens[lost[0]][:20].tolist())[:40]!r}), so bits per byte would have no meaning"
            )

    def _check_fit(self, largest: int) -> None:
        text_config = self._config.get("text_config")  # of models that take more than text
        configs = [text_config, self._config] if isinstance(text_config, dict) else [self._config]
        size = next((config["vocab_size"] for config in configs if "vocab_size" in config), None)
        if isinstance(size, int) and largest >= size:
            raise ModelError(
                f"{self.folder}: its tokenizer gives token {largest}, but the model knows {size} tokens; "
                "the tokenizer belongs to another model"
            )

    def _find_prefix(self) -> int:
        """BOS, else EOS, as the tokenizer's files state; else as the model's configuration does."""
        settings = [read_json(self.folder / name) for name in ("tokenizer_config.json", "special_tokens_map.json")]
        for kind in ("bos_token", "eos_token"):
            for values in settings:
                token = values.get(kind)
                token = token.get("content") if isinstance(token, dict) else token
                number = self.token_id(token) if isinstance(token, str) else None
                if number is not None:
                    self._check_fit(number)
                    return number
        for kind in ("bos_token_id", "eos_token_id"):
            value = self._configured(kind)
            if value is not None:
                self._check_fit(value)
                return value
        raise ModelError(
            f"{self.folder}: its tokenizer has neither a BOS nor an EOS token, and windows must start with one; name "
            "one in tokenizer_config.json"
        )

    @property
    def end_token_id(self) -> int | None:
        """EOS as the model's configuration states it."""
        return self._configured("eos_token_id")

    def _configured(self, kind: str) -> int | None:
        value = self._config.get(kind)
        value = value[0] if isinstance(value, list) and value else value
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def token_id(self, token: str) -> int | None:
        """The id of a token that is written so; None where it is none, or several."""
        number = self._backend.token_to_id(token) if self._is_fast else self._backend.get_vocab().get(token)
        return None if number is None else int(number)

    def _cache_path(self, documents: Sequence[Document], kind: str) -> Path:
        digest = hashlib.sha256(kind.encode())
        for document in documents:
            digest.update(bytes.fromhex(document.hash))
        return cache_root() / "tokens" / self.sha256[:16] / f"{digest.hexdigest()[:32]}.tokens"


def _load(folder: Path) -> Any:
    path = folder / TOKENIZER_JSON
    if path.is_file():
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise ModelError(f"{path} is not a tokenizer: {' '.join(str(error).split())[:150]}") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    if not any((folder / name).is_file() for name in OTHER_FILES):
        raise ModelError(f"{folder}: there is no tokenizer; save it there with tokenizer.save_pretrained(folder)")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        raise ModelError(f"{folder}: its tokenizer cannot be loaded: {reason}") from None


def _hash_files(folder: Path) -> str:
    """The hash of tokenizer.json; where there is none, of the files that take its place."""
    digest = hashlib.sha256()
    names = [TOKENIZER_JSON] if (folder / TOKENIZER_JSON).is_file() else [*OTHER_FILES, "tokenizer_config.json"]
    for name in names:
        path = folder / name
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in one of the tokenizer's files; empty where there is none."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _batches(documents: Sequence[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    num_bytes = 0
    for document in documents:
        batch.append(document)
        num_bytes += document.num_bytes
        if num_bytes >= BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def essence(text: str) -> str:
    """What a tokenizer must keep: the characters, apart from white space and their Unicode normal form."""
    return _SPACE.sub("", unicodedata.normalize("NFKC", text))


def _write(path: Path, tokens: Sequence[Tokens]) -> None:
    """A hash, the number of documents, their lengths, then all ids. A cache that cannot be written is done without."""
    lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
    flat = np.concatenate([*tokens, np.zeros(0, dtype=np.int32)]).astype("<i4")
    content = np.int64(len(tokens)).astype("<i8").tobytes() + lengths.astype("<i8").tobytes() + flat.tobytes()
    try:
        write_atomically(path, hashlib.sha256(content).digest() + content)
    except DiskError as error:
        _LOG.warning("tokens are not kept: %s", error)


def _read(path: Path, num_documents: int) -> list[Tokens] | None:
    """Kept tokens; None where there are none. Damaged files are named and moved aside."""
    try:
        stored = read_regular(path)
    except FileNotFoundError:
        return None
    except OSError:
        stored = b""
    content = memoryview(stored)[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != stored[:_DIGEST_BYTES]:
        _LOG.warning("%s is damaged: set aside as %s and made again", path, set_aside(path).name)
        return None
    lengths = np.frombuffer(content, dtype="<i8", count=num_documents, offset=8)
    flat = np.frombuffer(content, dtype="<i4", offset=8 + lengths.nbytes).astype(np.int32)
    return np.split(flat, np.cumsum(lengths)[:-1]) if num_documents else []
