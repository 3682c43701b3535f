"""What a plan says of corpora of conversations: their format, and by which template each model reads them."""

from __future__ import annotations

from collections.abc import Iterable

from lorabench.corpora.planning import DatasetPlan
from lorabench.models.planning import ModelPlan
from lorabench.tokens.templates import read_template


def conversation_notes(pairs: Iterable[tuple[ModelPlan, DatasetPlan]]) -> list[str]:
    """A sentence for each model and corpus of conversations. Raises ModelError for a template that cannot be read."""
    return [
        f"{dataset.name} is conversations ({dataset.format}): the answers alone are trained on and scored, "
        f"and {model.name} reads them by {_template_of(model)}"
        for model, dataset in pairs
        if dataset.format not in (None, "text")
    ]


def _template_of(model: ModelPlan) -> str:
    return "its chat template, if it has one" if model.folder is None else read_template(model.folder, model.name).name
