"""The model card of an exported run: what was measured, on what, from what, and how to load it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorabench.analysis.statistics import Interval, compare_pair
from lorabench.core.errors import DiskError
from lorabench.core.formatting import bits, number, percent, size, with_interval
from lorabench.core.version import VERSION
from lorabench.deploy.form import Form
from lorabench.deploy.subject import Subject
from lorabench.records.columns import SETTINGS
from lorabench.records.deployment import DeploymentRecord, DeploymentStore
from lorabench.records.schema import Drift, RunRecord, Scores, Status
from lorabench.records.store import RecordStore
from lorabench.report.markdown import bullets, code_block, escape, table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_HUB_LICENCES = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "Gemma Terms of Use": "gemma",
    "Llama 3.2 Community License": "llama3.2",
}
"""What the hub calls licences of the catalogue."""


def model_card(subject: Subject, form: Form, store: RecordStore, notes: Sequence[str] = ()) -> str:
    """A README.md for the folder of an exported form; `notes` are sentences on how that form was made."""
    from huggingface_hub import ModelCardData

    record = subject.record
    deployed = _deployed(record, form, store)
    published = subject.location.published
    metadata = ModelCardData(
        model_name=record.run_id,
        base_model=published.repository if published is not None else None,
        base_model_relation=form.relation if published is not None else None,
        library_name=form.library,
        license=_HUB_LICENCES.get(record.model.licence or "") if record.model is not None else None,
        pipeline_tag="text-generation",
        tags=["lorabench", *form.tags, record.spec.adapter.method],
        eval_results=_eval_results(record, form, deployed) or None,
    )
    parts = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {escape(record.run_id)}",
        _what(subject, form),
        "## How to use it",
        *form.usage(subject),
        "## What was measured",
        _measured(record, store),
        *_form_measured(form, deployed),
        "## What it was made from",
        bullets([*_origins(subject), *notes]),
        "## What to keep in mind",
        bullets(_limits(record)),
        "## Files and hashes",
        _hashes(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(subject: Subject, form: Form) -> str:
    record = subject.record
    return (
        f"{form.description} of {escape(subject.location.name)}, adapted to the corpus "
        f"{escape(record.spec.dataset)} by {escape(record.spec.adapter.method)}. "
        + (f"It was trained to answer: {escape(record.question)}" if record.question else "")
    ).strip()


def _eval_results(record: RunRecord, form: Form, deployed: DeploymentRecord | None) -> list[EvalResult]:
    """For `model-index`: the run's figures for its adapter, else what this very form scored; none where it was not."""
    from huggingface_hub import EvalResult

    scored = record if form.name == "adapter" else deployed
    if scored is None:
        return []
    found = []
    for split, scores in (("validation", scored.validation), ("test", scored.test)):
        if scores is None:
            continue
        for kind, title, value in (
            ("bits_per_byte", "Bits per byte", scores.bits_per_byte),
            ("perplexity", "Token perplexity", scores.perplexity),
        ):
            found.append(
                EvalResult(
                    task_type="text-generation",
                    dataset_type=record.spec.dataset,
                    dataset_name=record.spec.dataset,
                    dataset_split=split,
                    dataset_revision=record.spec.dataset_revision,
                    metric_type=kind,
                    metric_name=title,
                    metric_value=round(value, 6),
                )
            )
    return found


def _measured(record: RunRecord, store: RecordStore) -> str:
    rows = [
        _row(
            "validation, by which it was chosen",
            record.base_validation,
            record.validation,
            _change(record, store, "validation"),
        ),
        _row(
            "test, scored once" if record.num_test_scorings == 1 else "test",
            record.base_test,
            record.test,
            _change(record, store, "test"),
        ),
        *(_row(f"also on {drift.dataset}", drift.base, drift.adapted, _drift(drift)) for drift in record.drift),
    ]
    lines = [table(("text", "documents", "base", "adapted", "perplexity", "change, 95 %"), rows)]
    lines.append(
        "Bits per byte of text, lower is better; perplexity is per token, and compares within one tokenizer only. "
        "The change is in bits per byte, paired by document, on this seed."
    )
    return "\n\n".join(lines)


def _deployed(record: RunRecord, form: Form, store: RecordStore) -> DeploymentRecord | None:
    """What was measured of this form of just this adapter; None where that is nothing."""
    try:
        found = DeploymentStore(store.output_dir).read(record.run_id, form.name)
    except DiskError:
        return None
    if found is None or found.status is not Status.COMPLETED or found.adapter_sha256 not in record.files.values():
        return None
    return found


def _form_measured(form: Form, deployed: DeploymentRecord | None) -> list[str]:
    """What this form scored, where it was deployed; else that the figures are those of the adapter."""
    if deployed is None:
        reason = "the adapter itself, before it was merged and rounded; this form was not measured"
        return [] if form.name == "adapter" else [f"These are figures of {reason}."]
    rows = [
        ("bits per byte of validation", bits(deployed.validation.bits_per_byte if deployed.validation else None)),
        ("bits per byte of test", bits(deployed.test.bits_per_byte if deployed.test else None)),
        ("tensors by type", escape(", ".join(f"{kind} {count}" for kind, count in deployed.real_types.items()))),
        ("peak memory", size(deployed.peak_memory)),
        ("tokens per second, one text", number(deployed.median("decode_tokens_per_second"), 3)),
    ]
    where = f"{deployed.threads} threads, {escape(deployed.environment.processor)}"
    return [f"In this form (`{form.name}`), measured with {where}:", table(("figure", "value"), rows)]


def _row(name: str, base: Scores | None, adapted: Scores | None, change: str) -> list[str]:
    return [
        escape(name),
        f"{adapted.num_documents:,}" if adapted else "–",
        bits(base.bits_per_byte if base else None),
        bits(adapted.bits_per_byte if adapted else None),
        number(adapted.perplexity if adapted else None),
        change,
    ]


def _change(record: RunRecord, store: RecordStore, split: str) -> str:
    """The paired difference to the base with its interval, from the per-document results."""
    scores = record.validation if split == "validation" else record.test
    interval = gain_of(record, store, split, scores) if scores is not None else None
    return "–" if interval is None else "{} ({})".format(*with_interval(interval, is_signed=True))


def gain_of(record: RunRecord, store: RecordStore, split: str, scores: Scores) -> Interval | None:
    """Adapted minus base in bits per byte, paired by document; None where the per-document results are missing."""
    name = split if split == "validation" else record.test_documents.removeprefix("documents/").removesuffix(".parquet")
    try:
        documents = store.documents(record, name, scores)
    except DiskError:
        return None
    if documents is None or documents.base_nll is None:
        return None
    pair = compare_pair(documents.nll[None], documents.base_nll[None], documents.num_bytes)
    return pair.interval(len(documents.nll), 1, "on this seed")


def _drift(drift: Drift) -> str:
    base = drift.base.bits_per_byte
    return percent(drift.adapted.bits_per_byte / base - 1.0) if base else "–"


def _origins(subject: Subject) -> list[str]:
    record = subject.record
    model, dataset, budget = record.model, record.dataset, record.budget
    sentences = []
    if model is not None:
        note = f"; {model.weights_note}" if model.weights_note else ""
        licence = model.licence or "not stated"
        sentences.append(f"Base: {model.name}, revision {model.revision}, licence {licence}{note}")
    if dataset is not None:
        sentences.append(
            f"Corpus: {dataset.name}, revision {dataset.revision}, licence {dataset.licence or 'not stated'}"
            + (", made text" if dataset.synthetic else "")
        )
    if budget is not None:
        sentences.append(
            f"Training: {size(budget.train_bytes)} of text in {budget.train_documents:,} documents, "
            f"{budget.train_tokens:,} tokens, {budget.steps:,} steps, seed {record.spec.seed}"
        )
    settings = [(item.title, item.show(record.spec)) for item in SETTINGS if item.is_axis]
    sentences.append("Settings: " + ", ".join(f"{title} {value}" for title, value in settings if value is not None))
    sentences.append(f"Measured with lorabench {record.environment.lorabench_version}, exported with {VERSION}")
    return sentences


def _limits(record: RunRecord) -> list[str]:
    sentences = ["The figures hold for text like that of the corpus, and say nothing of what the model should not say"]
    contaminated = record.dataset is not None and record.spec.model in record.dataset.contaminates
    if contaminated:
        sentences.append(f"The base was trained on {record.spec.dataset}, so its own figures are too good")
    if record.num_test_scorings > 1:
        sentences.append(f"Test was scored {record.num_test_scorings} times, so it is less of a test")
    return [*sentences, *(note.rstrip(".") for note in record.notes)]


def _hashes(record: RunRecord) -> str:
    lines = [f"{digest}  {name}" for name, digest in sorted(record.files.items()) if name.startswith("adapter/")]
    return "SHA-256 of the run's own adapter, as its record holds them:\n\n" + code_block("\n".join(lines))
