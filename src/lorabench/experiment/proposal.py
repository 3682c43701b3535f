"""From a text and a machine to an experiment that fits both, as a short file with comments."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from lorabench.core.device import Device
from lorabench.core.errors import ConfigError
from lorabench.core.formatting import duration, rough_size
from lorabench.core.home import user_path
from lorabench.core.machine import num_cores
from lorabench.core.revisions import safe_name
from lorabench.corpora.catalog import find_corpus
from lorabench.corpora.documents import SPLITS, CorpusInfo
from lorabench.corpora.planning import DatasetPlan, plan_dataset
from lorabench.corpora.store import read_corpus_info
from lorabench.experiment.plan import Plan, make_plan
from lorabench.experiment.schema import NAME, build_experiment
from lorabench.models.catalog import list_models
from lorabench.models.entry import ModelSource

MOST_BYTES = {False: 500_000, True: 4_000_000}
"""Of training text that are proposed, without and with a GPU."""
LEAST_BYTES = 4_000
MEMORY_SHARE = 0.7
"""Of the device's memory that a run may be estimated to take."""
MOST_MODELS = 3
MOST_PARAMETERS = {False: 500_000_000, True: 8_000_000_000}
CONTEXTS = {False: (128, 256), True: (128, 256, 512, 1024)}
BYTES_PER_TOKEN = 4
LEAST_STEPS = 40
DESIGNS: tuple[dict[str, Any], ...] = (
    {"rank": [8, 32], "learning_rate": [3.0e-4, 1.0e-3, 3.0e-3], "seeds": [0, 1]},
    {"rank": 16, "learning_rate": [1.0e-3, 3.0e-3], "seeds": [0, 1]},
    {"rank": 16, "learning_rate": 1.0e-3, "seeds": [0, 1]},
)
"""What is asked about rank, rate and seeds; the richest that fits is proposed."""
SMALLEST_SHARE = 8
"""A richer design is preferred down to this part of the text, a simpler one from there on."""


@dataclass(frozen=True)
class Proposal:
    """An experiment file that is not written yet."""

    text: str
    plan: Plan
    facts: tuple[str, ...]
    """What was found: of the text, the machine and the models, a sentence each."""


def propose(reference: str, text_field: str, device: Device, *, has_hub: bool, max_seconds: float) -> Proposal:
    """The largest of some experiments on a corpus that `device` has the memory for and is done with in `max_seconds`.

    Where none is, the smallest. Raises InputError for a corpus that cannot be used, and for one that no model fits.
    """
    dataset = plan_dataset(reference, text_field, MOST_BYTES[device.is_gpu])
    info = read_corpus_info(find_corpus(reference, text_field=text_field), max_train_bytes=MOST_BYTES[device.is_gpu])
    models = [model.name for model in _usable_models(device, has_hub)]
    values, plan = _largest_that_fits(reference, text_field, dataset, models, device, max_seconds)
    facts = (
        *_text_facts(dataset, info),
        *_split_notes(reference),
        _machine_fact(device, has_hub),
        _plan_fact(plan, max_seconds),
    )
    notes = tuple(f"Note: {warning}." for warning in plan.warnings)
    return Proposal(_write(values, (*facts, *notes)), plan, facts)


def _usable_models(device: Device, has_hub: bool) -> list[ModelSource]:
    """Models of the catalogue that can be had here, the largest of each family, real ones before made ones."""

    def can_be_had(model: ModelSource) -> bool:
        if model.present_folder() is not None or model.source == "wheel":
            return True
        return model.source == "hub" and has_hub and (not model.gated or bool(os.environ.get("HF_TOKEN")))

    here = [model for model in list_models() if model.source != "mini" and can_be_had(model)]
    sizes = {model.name: model.model_shape().num_parameters for model in here}
    small = [model for model in here if sizes[model.name] <= MOST_PARAMETERS[device.is_gpu]]
    families: dict[str, ModelSource] = {}
    for model in sorted(small, key=lambda model: -sizes[model.name]):
        if 2 * sizes[model.name] < MEMORY_SHARE * device.memory_bytes:
            families.setdefault(model.family, model)
    return list(families.values())


def _largest_that_fits(
    reference: str, text_field: str, dataset: DatasetPlan, models: list[str], device: Device, max_seconds: float
) -> tuple[dict[str, Any], Plan]:
    best: tuple[dict[str, Any], Plan] | None = None
    for names, design, train_bytes in _candidates(dataset, models, device):
        values = _experiment(reference, text_field, dataset, names, design, train_bytes, device)
        try:
            plan = make_plan(build_experiment(values), device)
        except ConfigError:  # a context that one of the models cannot read
            continue
        needed = max(run.estimated_memory_bytes for run in plan.runs)
        if needed > MEMORY_SHARE * device.memory_bytes:
            continue
        if plan.estimated_seconds <= max_seconds:
            return values, plan
        if best is None or plan.estimated_seconds < best[1].estimated_seconds:
            best = values, plan
    if best is None:
        raise ConfigError(
            f"init: no model of the catalogue fits {rough_size(device.memory_bytes)} of memory here; "
            "write an experiment with a model folder of your own"
        )
    return best


def _candidates(
    dataset: DatasetPlan, models: list[str], device: Device
) -> Iterator[tuple[list[str], dict[str, Any], int]]:
    """Models, design and bytes of training text, in the order in which they are preferred."""
    most = min(dataset.num_bytes["train"], MOST_BYTES[device.is_gpu])
    choices = [models[:MOST_MODELS]] if len(models) > 1 else []
    choices += [[name] for name in models]
    shares = [2**power for power in range(SMALLEST_SHARE.bit_length())]
    for names in choices:
        for design in DESIGNS:
            yield from ((names, design, most // share) for share in shares if most // share >= LEAST_BYTES)
    least = min(most, LEAST_BYTES)
    yield from (([name], design, least) for name in reversed(models) for design in DESIGNS)


def _experiment(
    reference: str,
    text_field: str,
    dataset: DatasetPlan,
    models: list[str],
    design: dict[str, Any],
    train_bytes: int,
    device: Device,
) -> dict[str, Any]:
    context = _context(dataset, device)
    rows = max(1, train_bytes // (BYTES_PER_TOKEN * context))
    batch_size = 1
    while batch_size < 16 and rows // (2 * batch_size) >= LEAST_STEPS:
        batch_size *= 2
    held_out = max(10_000, min(train_bytes // 4, 200_000))
    name = safe_name(Path(reference).stem)[:60]
    fields = {} if text_field == "text" else {"text_field": text_field}
    return {
        "name": name if re.fullmatch(NAME, name) else "experiment",
        "question": _question(models, design),
        "models": models,
        "datasets": [reference],
        **fields,
        "adapter": {"method": "lora", "rank": design["rank"], "alpha": "2r", "target_modules": "all-linear"},
        "training": {
            "learning_rate": design["learning_rate"],
            "batch_size": batch_size,
            "context_length": context,
            "train_bytes": _rounded(train_bytes),
        },
        "evaluation": {"validation_bytes": _rounded(held_out), "test_bytes": _rounded(held_out // 2), "times": 2},
        "seeds": design["seeds"],
    }


def _question(models: list[str], design: dict[str, Any]) -> str:
    """What the axes ask."""
    axes = [("base", models), ("rank", design["rank"]), ("learning rate", design["learning_rate"])]
    varied = [name for name, values in axes if isinstance(values, list) and len(values) > 1]
    if not varied:
        return "What does an adapter gain on this text?"
    which = " and ".join([", ".join(varied[:-1]), varied[-1]] if varied[1:] else varied)
    return f"Which {which} {'suit' if varied[1:] else 'suits'} this text?"


def _context(dataset: DatasetPlan, device: Device) -> int:
    """The shortest window that holds most documents, of those that are proposed on such a device."""
    contexts = CONTEXTS[device.is_gpu]
    lengths = dataset.validation_lengths
    tokens = median(lengths) / BYTES_PER_TOKEN if lengths else contexts[-1]
    return next((context for context in contexts if context >= tokens), contexts[-1])


def _rounded(num_bytes: int) -> int:
    """To two digits, downwards."""
    unit = int(10 ** max(0, len(str(num_bytes)) - 2))
    return num_bytes // unit * unit


def _text_facts(dataset: DatasetPlan, info: CorpusInfo | None) -> Iterator[str]:
    if info is None:
        total = rough_size(sum(dataset.num_bytes.values()))
        yield f"Text: {dataset.name}, about {total}; it is fetched and split when it is first run."
        return
    count, size = sum(info.num_documents.values()), sum(info.num_bytes.values())
    lengths = (
        f", half of them up to {round(median(info.validation_lengths)):,} bytes" if info.validation_lengths else ""
    )
    yield f"Text: {count:,} documents with {rough_size(size)}{lengths}."
    splits = ", ".join(
        f"{split} {info.num_documents[split]:,} ({rough_size(info.num_bytes[split])})" for split in SPLITS
    )
    yield f"Split by document: {splits}."
    removed = {reason.replace("_", " "): count for reason, count in info.removed.items() if count}
    gone = ", ".join(f"{count:,} {reason}" for reason, count in removed.items())
    yield f"Left out: {gone}." if gone else "No copies and no empty documents were found."
    if info.notes:
        yield f"Note: {info.notes}."


def _split_notes(reference: str) -> Iterator[str]:
    """What is said of a folder whose files are called as splits are: they are read as one text."""
    folder = user_path(reference)
    if not folder.is_dir() or any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return
    words = {word for file in folder.iterdir() for word in re.split(r"[^a-z]+", file.name.lower())}
    if "train" in words and words & {"validation", "valid", "val", "dev", "test"}:
        yield (
            f"Note: the files of {reference} are called as splits, but a folder is one text, which is split anew; give "
            "them by `train`, `validation` and `test` to keep them as they are."
        )


def _machine_fact(device: Device, has_hub: bool) -> str:
    where = device.name if device.is_gpu else f"{num_cores()} cores of {device.name}"
    hub = "the hub answers" if has_hub else "the hub cannot be reached, so only models that are here or on PyPI"
    return f"Machine: {where} with {rough_size(device.memory_bytes)} of memory; {hub}."


def _plan_fact(plan: Plan, max_seconds: float) -> str:
    needed = max(run.estimated_memory_bytes for run in plan.runs)
    size = f"{len(plan.runs)} runs, about {duration(plan.estimated_seconds)} and at most {rough_size(needed)} of memory"
    if plan.estimated_seconds > max_seconds:
        return f"Plan: {size}, more than the {duration(max_seconds)} asked for; less would tell nothing."
    return f"Plan: {size}."


def _write(values: dict[str, Any], facts: tuple[str, ...]) -> str:
    """The file: the facts, then the experiment with a word on what to change."""
    words = {
        "models": "lorabench models lists more; folders of your own too",
        "adapter": "a list is an axis: every combination is run",
        "training": "train_bytes is a budget of text, the same for every model",
        "evaluation": "everything is chosen on validation; test is scored once",
        "seeds": "two or more tell differences from noise",
    }
    lines = [f"# {' '.join(fact.split())}" for fact in facts]
    for key, value in values.items():
        lines += [f"# {key}: {words[key]}"] if key in words else []
        if isinstance(value, dict):
            lines += [f"{key}:", *(f"  {name}: {_show(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"{key}: {_show(value)}")
    return "\n".join(lines) + "\n"


def _show(value: Any) -> str:
    """A value or a list in one line of YAML."""
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").strip()
