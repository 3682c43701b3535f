"""The first stage of a run: model, corpus and course, checked and described for its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lorabench.core.canonical import fingerprint
from lorabench.core.errors import ModelError
from lorabench.corpora.documents import Corpus
from lorabench.experiment.layout import Layout
from lorabench.experiment.schema import RunSpec
from lorabench.models.catalog import was_trained_on
from lorabench.models.entry import ModelLocation
from lorabench.records.schema import Budget, ConversationFacts, DatasetFacts, ModelFacts
from lorabench.runs.group import GroupWork
from lorabench.runs.task import RunTask
from lorabench.training.loop import Course, TrainingText

Note = Callable[[str], None]
"""Is told at once what a reader of the record should know."""


@dataclass(frozen=True)
class Prepared:
    """What the run has to work with."""

    text: TrainingText
    course: Course
    model: ModelFacts
    dataset: DatasetFacts
    budget: Budget
    conversations: ConversationFacts | None


def prepare(task: RunTask, work: GroupWork, layout: Layout, note: Note) -> Prepared:
    """Model, corpus and course. Raises InputError where one is not what it was when the run was planned."""
    spec = task.spec
    corpus = work.corpus(spec.dataset, spec.training.train_bytes)
    check_model(work, spec)
    for sentence in _reservations(work.shared.location, corpus):
        note(sentence)
    text, documents = work.training_text(spec)
    course = Course.of(
        text,
        spec.training,
        seed=spec.seed,
        micro_batch_size=layout.rows,
        num_evaluations=spec.evaluation.times,
    )
    rows_per_device = -(-spec.training.batch_size // task.num_devices)
    budget = Budget(
        train_bytes=sum(document.num_bytes for document in documents),
        train_documents=len(documents),
        train_tokens=text.num_tokens,
        num_rows=text.num_rows(spec.training.context_length),
        steps=course.num_steps,
        epochs=spec.training.epochs,
        micro_batch_size=layout.rows,
        accumulation_steps=-(-rows_per_device // layout.rows),
        gradient_checkpointing=layout.checkpointing,
        training_text_sha256=fingerprint([document.hash for document in documents]),
        validation_seen=work.validation_seen(spec),
    )
    dataset = DatasetFacts(**corpus.info.model_dump(include=set(DatasetFacts.model_fields)))
    conversations = work.conversation_facts(spec)
    for sentence in _about_conversations(spec, conversations):
        note(sentence)
    return Prepared(text, course, _describe_model(work), dataset, budget, conversations)


def _about_conversations(spec: RunSpec, facts: ConversationFacts | None) -> list[str]:
    """How a corpus of conversations is read, and what the context does not hold."""
    if facts is None:
        return []
    length = spec.training.context_length
    found = [f"conversations of {spec.dataset} are written by {facts.template}; their answers alone are scored"]
    if facts.num_train_left_out:
        found.append(f"{facts.num_train_left_out} conversations to train on are longer than {length} tokens: left out")
    found += [
        f"{count} conversations of {split} are longer than {length} tokens: their answers are scored in windows"
        for split, count in facts.num_in_windows.items()
        if count
    ]
    return found


def check_model(work: GroupWork, spec: RunSpec) -> None:
    """Raise ModelError where a model folder is not what it was when the run was planned."""
    location = work.shared.location
    if location.info.source == "folder" and location.revision != spec.model_revision:
        raise ModelError(f"{location.folder}: the model changed while the experiment ran; start it again")


def _describe_model(work: GroupWork) -> ModelFacts:
    location, tokeniser = work.shared.location, work.shared.tokeniser
    return ModelFacts(
        name=location.name,
        revision=location.revision,
        source=location.info.source,
        family=location.info.family,
        num_parameters=work.shared.base.num_parameters,
        licence=location.info.licence,
        tokenizer_sha256=tokeniser.sha256,
        prefix_token_id=tokeniser.prefix_token_id,
        weights_note=location.info.weights_note,
        pinned=location.info.pinned,
    )


def _reservations(location: ModelLocation, corpus: Corpus) -> list[str]:
    """What the model and the corpus themselves take away from a result."""
    found = [
        f"{kind} {name} is not pinned: this is revision {revision}, and another day's newest may be another"
        for kind, name, revision, pinned in (
            ("model", location.name, location.revision, location.info.pinned),
            ("dataset", corpus.name, corpus.revision, corpus.info.pinned),
        )
        if not pinned
    ]
    if was_trained_on(location.name, corpus.info.contaminates):
        found.append(f"{location.name} was trained on {corpus.name}: its scores there flatter it")
    return found
