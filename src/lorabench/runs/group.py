"""What the runs of one base model share, each thing done once: weights, tokens, and the base's own scores."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorabench.core.canonical import fingerprint
from lorabench.core.device import Device
from lorabench.core.errors import DataError
from lorabench.core.locks import exclusively
from lorabench.core.progress import Progress
from lorabench.core.storage import read_regular, recall, remember, set_aside, write_atomically
from lorabench.corpora.catalog import find_corpus
from lorabench.corpora.documents import Corpus, Document
from lorabench.corpora.drawing import DrawnText, take_text
from lorabench.corpora.entry import DatasetEntry
from lorabench.corpora.repeats import share_seen
from lorabench.corpora.store import load_prepared
from lorabench.experiment.identity import BaseVariant
from lorabench.experiment.schema import RunSpec, ScoringSettings
from lorabench.models.base import PRECISIONS, FrozenBase, load_base
from lorabench.models.entry import ModelLocation
from lorabench.models.locate import locate_model
from lorabench.models.quantized import quantization_of
from lorabench.records.provenance import running_code_sha256
from lorabench.records.schema import ConversationFacts, Sample
from lorabench.runs.context import Once
from lorabench.runs.keeping import Keeper
from lorabench.runs.task import SharedInputs
from lorabench.scoring.answers import Answers
from lorabench.scoring.documents import DocumentScores, Room, score_documents
from lorabench.scoring.samples import NUM_PROMPT_TOKENS, choose_prompts, continue_documents
from lorabench.scoring.tasks import TaskFigures, run_tasks
from lorabench.tokens.chat import ChatTokeniser, encode_documents
from lorabench.tokens.packing import Marks, Prefix, Tokens, prefix_of
from lorabench.tokens.text_size import TextQuestion, TextSize
from lorabench.tokens.tokenizer import Tokeniser
from lorabench.training.loop import TrainingText

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Text:
    """What was taken of a split."""

    drawn: DrawnText
    tokens: list[Tokens]
    """[P], token ids of its pieces."""
    prefix: Prefix
    """The token that starts a window, or the piece's own [P]."""
    marks: list[Marks] | None = None
    """[P], of conversations."""

    def num_longer(self, context_length: int) -> int:
        """Conversations that do not fit into a window."""
        return 0 if self.marks is None else sum(len(ids) > context_length for ids in self.tokens)


@dataclass
class SharedBase:
    """One base model, loaded once in one way for all groups that use it."""

    variant: BaseVariant
    location: ModelLocation
    base: FrozenBase
    tokeniser: Tokeniser
    room: Room = field(default_factory=Room)
    """For scoring with it."""

    @classmethod
    def load(cls, reference: str, variant: BaseVariant, device: Device, progress: Progress) -> SharedBase:
        """Fetch the model where needed and load it. Raises InputError for what cannot be loaded as `variant` says."""
        quantization = quantization_of(variant.quantization)
        location = locate_model(reference, progress=progress)
        precision = PRECISIONS[variant.precision]
        base = load_base(location.folder, precision=precision, device=str(device), quantization=quantization)
        return cls(variant, location, base, Tokeniser(location.folder))

    def free(self) -> None:
        """Give the memory back before the next base is loaded."""
        self.base.free()
        gc.collect()


@dataclass
class GroupWork:
    """A base and a corpus, with what was already read, tokenised and scored."""

    shared: SharedBase
    inputs: SharedInputs
    base_scores_dir: Path
    progress: Progress
    once: Once = exclusively
    keeper: Keeper | None = None
    """Of runs that have paused; None: they go on from disk."""
    _sources: dict[str, DatasetEntry] = field(default_factory=dict)
    _corpora: dict[str, dict[int | None, Corpus]] = field(default_factory=dict)
    """By name, and by how much was read of its source."""
    _texts: dict[tuple[str, str, int], Text] = field(default_factory=dict)
    _seen: dict[tuple[str, int, int], float | None] = field(default_factory=dict)
    _base_scores: dict[str, DocumentScores] = field(default_factory=dict)
    _base_samples: dict[str, list[Sample]] = field(default_factory=dict)
    _base_tasks: dict[str, dict[str, TaskFigures]] = field(default_factory=dict)
    base_answers: dict[str, Answers] = field(default_factory=dict)
    """What the base wrote, kept by `lorabench.runs.answering`."""

    def corpus(self, name: str, train_bytes: int | None = None) -> Corpus:
        """The group's corpus, or one it is also scored on, as a run with this budget reads it; each is read once.

        None: with any budget, as held-out text depends on none. Raises DataError where a file is not what it was when
        the runs were planned.
        """
        read = self._corpora.setdefault(name, {})
        if train_bytes is None and read:
            return next(iter(read.values()))
        source, budget = self._source(name), train_bytes or self.inputs.largest_train_bytes
        size = source.bytes_to_read(budget)
        if size not in read:
            corpus = load_prepared(source, max_train_bytes=budget, progress=self.progress)
            if source.read_by_plans and corpus.revision != self.inputs.corpus(name).revision:
                raise DataError(f"{name}: the corpus changed while the experiment ran; start it again")
            read[size] = corpus
        return read[size]

    def _source(self, name: str) -> DatasetEntry:
        if name not in self._sources:
            self._sources[name] = find_corpus(
                self.inputs.corpus(name).reference,
                text_field=self.inputs.text_field,
                max_train_bytes=self.inputs.largest_train_bytes,
            )
        return self._sources[name]

    def text(self, name: str, split: str, max_bytes: int) -> Text:
        """The text that the budget pays for, tokenised (and kept on disk by the tokeniser's cache)."""
        key = (name, split, max_bytes)
        if key not in self._texts:
            corpus = self.corpus(name, max_bytes if split == "train" else None)
            drawn = take_text(corpus.splits[split], split, max_bytes)
            chat = None if corpus.info.format == "text" else self.chat
            encoded = encode_documents(self.shared.tokeniser, chat, drawn.pieces)
            self._texts[key] = Text(drawn, encoded.tokens, encoded.prefix, encoded.marks)
        return self._texts[key]

    @cached_property
    def chat(self) -> ChatTokeniser:
        """Of conversations. Raises ModelError where the model cannot read any."""
        return ChatTokeniser(self.shared.tokeniser, self.shared.location.name)

    def conversation_facts(self, spec: RunSpec) -> ConversationFacts | None:
        """How the run's corpus is read; None where it is plain text."""
        if self.corpus(spec.dataset).info.format == "text":
            return None
        length = spec.training.context_length
        return ConversationFacts(
            template=self.chat.template.name,
            template_sha256=self.chat.template.sha256,
            end_of_turn=self.chat.template.end_of_turn,
            num_train_left_out=self.text(spec.dataset, "train", spec.training.train_bytes).num_longer(length),
            num_in_windows={
                split: self.scored_text(spec.dataset, split, spec.evaluation).num_longer(length)
                for split in ("validation", "test")
            },
        )

    def _remember_size(self, spec: RunSpec, text: TrainingText, documents: Sequence[Document]) -> None:
        TextQuestion(
            model=spec.model,
            model_revision=spec.model_revision,
            dataset=spec.dataset,
            dataset_revision=spec.dataset_revision,
            text_field=self.inputs.text_field,
            train_bytes=spec.training.train_bytes,
            largest_train_bytes=self.inputs.largest_train_bytes,
        ).remember(TextSize(sum(document.num_bytes for document in documents), text.num_tokens))

    def training_text(self, spec: RunSpec) -> tuple[TrainingText, list[Document]]:
        """What a run trains on, and its documents. Raises DataError where no conversation fits into the context."""
        text, length = self.text(spec.dataset, "train", spec.training.train_bytes), spec.training.context_length
        if text.marks is None:
            training_text = TrainingText(text.tokens, text.prefix)
            self._remember_size(spec, training_text, text.drawn.pieces)
            return training_text, text.drawn.pieces
        fitting = [place for place, ids in enumerate(text.tokens) if len(ids) <= length]
        if not fitting:
            raise DataError(
                f"{spec.dataset}: none of the {len(text.tokens)} conversations to train on fits into {length} tokens; "
                f"the shortest has {min(map(len, text.tokens))}: give a larger training.context_length"
            )
        training_text = TrainingText(
            [text.tokens[place] for place in fitting],
            [prefix_of(text.prefix, place) for place in fitting],
            [text.marks[place] for place in fitting],
        )
        return training_text, [text.drawn.pieces[place] for place in fitting]

    def scored_text(self, name: str, split: str, settings: ScoringSettings) -> Text:
        """What is scored on a split."""
        return self.text(name, split, settings.test_bytes if split == "test" else settings.validation_bytes)

    def validation_seen(self, spec: RunSpec) -> float | None:
        """Share of the validation text's word sequences that occur in the training text; computed once for a budget."""
        budgets = (spec.dataset, spec.training.train_bytes, spec.evaluation.validation_bytes)
        if budgets not in self._seen:
            held_out = self.scored_text(spec.dataset, "validation", spec.evaluation).drawn.pieces
            training = self.text(spec.dataset, "train", spec.training.train_bytes).drawn.pieces
            self._seen[budgets] = share_seen((one.text for one in held_out), (one.text for one in training))
        return self._seen[budgets]

    def score(
        self, name: str, split: str, spec: RunSpec, progress: Callable[[int, int], None] | None = None
    ) -> DocumentScores:
        """Score a split with the base as it is now: with the adapter that is attached, if one is."""
        text = self.scored_text(name, split, spec.evaluation)
        phase = split if name == spec.dataset else f"drift on {name}"
        scores = score_documents(
            self.shared.base,
            text.drawn.pieces,
            text.tokens,
            prefix=text.prefix,
            context_length=spec.training.context_length,
            stride=spec.evaluation.stride,
            marks=text.marks,
            room=self.shared.room,
            progress=progress or (lambda done, total: self.progress(phase, done, total)),
        )
        return scores.of_documents(text.drawn)

    def base_scores(self, name: str, split: str, spec: RunSpec) -> DocumentScores:
        """The base's own scores: computed once however many runs share them, and kept on disk for later ones.

        Call only while no adapter is attached, or after the first call.
        """
        text = self.scored_text(name, split, spec.evaluation)
        key = self._base_key(
            documents=text.drawn.hashes,
            context_length=spec.training.context_length,
            stride=spec.evaluation.stride,
            **({} if text.marks is None else {"template": self.chat.template.sha256}),
        )
        if key not in self._base_scores:
            scores = _read_scores(self.base_scores_dir, key, text)
            self._base_scores[key] = scores or self._score_base_once(name, split, spec, key)
        return self._base_scores[key]

    def _score_base_once(self, name: str, split: str, spec: RunSpec, key: str) -> DocumentScores:
        """Other processes that want the same scores wait until they are there."""
        what = f"the base on {name} ({split})"

        with self.made_once(key, f"scores {what}"):
            scores = _read_scores(self.base_scores_dir, key, self.scored_text(name, split, spec.evaluation))
            if scores is None:
                self.progress(f"scoring {what}", 0, None)
                scores = self.score(
                    name, split, spec, lambda done, total: self.progress(f"scoring {what}", done, total)
                )
                _write_scores(self.base_scores_dir, key, scores)
        return scores

    def made_once(self, name: str, what: str) -> AbstractContextManager[None]:
        """Other processes that want the files of this name wait, telling what their maker does."""
        return self.once(
            self.base_scores_dir / name,
            on_wait=lambda owner: self.progress(f"waiting for {owner}, which {what}", 0, None),
        )

    def samples(self, spec: RunSpec, count: int) -> list[Sample]:
        """What the model, as it is now, writes after the beginnings of the first `count` long pieces of validation."""
        text = self.scored_text(spec.dataset, "validation", spec.evaluation)
        chosen = choose_prompts(text.tokens, count)
        continuations = continue_documents(
            self.shared.base, self.shared.tokeniser, text.tokens, chosen, spec.seed, prefix=text.prefix
        )
        return [
            Sample(
                document_hash=text.drawn.hashes[text.drawn.owners[index]],
                prompt=self.shared.tokeniser.decode(text.tokens[index][:NUM_PROMPT_TOKENS].tolist()),
                continuation=continuation,
            )
            for index, continuation in zip(chosen, continuations, strict=True)
        ]

    def base_samples(self, spec: RunSpec, count: int) -> list[Sample]:
        """The base's own continuations, written once per seed. Call only while no adapter is attached."""
        documents = self.scored_text(spec.dataset, "validation", spec.evaluation).drawn.hashes
        name = "samples-" + self._base_key(documents=documents, count=count, seed=spec.seed)
        if name not in self._base_samples:
            kept = self._kept(
                name,
                f"continues {spec.dataset} with the base",
                lambda: [sample.model_dump() for sample in self.samples(spec, count)],
            )
            self._base_samples[name] = [Sample(**values) for values in kept]
        return self._base_samples[name]

    def tasks(self, reference: str, num_examples: int | None) -> dict[str, TaskFigures]:
        """What the model, as it is now, scores on tasks of the harness."""
        return run_tasks(self.shared.base, self.shared.location.folder, reference, num_examples)

    def base_tasks(self, reference: str, revision: str, num_examples: int | None) -> dict[str, TaskFigures]:
        """The base's own figures, once for all runs. Call only while no adapter is attached."""
        name = "tasks-" + self._base_key(reference=reference, revision=revision, num_examples=num_examples)
        if name not in self._base_tasks:
            what = f"the base does {Path(reference).name}"

            def do() -> dict[str, dict[str, Any]]:
                self.progress(what, 0, None)
                return {task: asdict(figures) for task, figures in self.tasks(reference, num_examples).items()}

            kept = self._kept(name, f"does {Path(reference).name} with the base", do)
            self._base_tasks[name] = {task: TaskFigures(**values) for task, values in kept.items()}
        return self._base_tasks[name]

    def _base_key(self, **what: object) -> str:
        """Of what the base as it is loaded makes of `what`."""
        variant = self.shared.variant
        how = {
            "model": [variant.model, variant.revision, self.shared.tokeniser.sha256],
            "precision": variant.loading,
            "device": self.shared.base.device.type,
            "code": running_code_sha256(),
        }
        return fingerprint(how | what)

    def _kept(self, name: str, what: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, as JSON values: made once for all workers, and kept on disk for later ones."""
        path = self.base_scores_dir / f"{name}.json"
        with self.made_once(name, what):
            values = recall(path)
            if values is None:
                values = json.loads(json.dumps(make(), default=str))
                remember(path, values)
        return values


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a Parquet file whole or not at all."""
    write_atomically(path, table.to_parquet(index=False, compression="zstd"))


def read_table(path: Path) -> DocumentScores:
    """What `write_table` wrote of scored documents."""
    return _parse_table(read_regular(path))


def _parse_table(content: bytes) -> DocumentScores:
    import pandas as pd

    return DocumentScores.of_table(pd.read_parquet(io.BytesIO(content), use_threads=False))


def _write_scores(folder: Path, key: str, scores: DocumentScores) -> None:
    """Keep scores in a file whose name is the key and a hash of both key and content."""
    content = scores.table().to_parquet(index=False, compression="zstd")
    write_atomically(folder / f"{key}-{_keyed_hash(key, content)}.parquet", content)


def _keyed_hash(key: str, content: bytes) -> str:
    return hashlib.sha256(key.encode() + content).hexdigest()


def _read_scores(folder: Path, key: str, text: Text) -> DocumentScores | None:
    """Kept scores, if they are whole and of exactly these documents; damaged ones are named and set aside."""
    for path in sorted(folder.glob(f"{key}-*.parquet")):
        try:
            content = read_regular(path)
            if _keyed_hash(key, content) != path.stem.rpartition("-")[2]:
                raise ValueError("it does not match its hash")
            scores = _parse_table(content)
            if (scores.end_nll is None) != (text.marks is None):
                raise ValueError("it is of another kind of text")
            if scores.hashes != tuple(text.drawn.hashes):
                raise ValueError("it holds other documents")
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.warning("%s is damaged (%s): set aside as %s and made again", path, error, set_aside(path).name)
        else:
            return scores
    return None
