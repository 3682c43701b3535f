"""How much training text a run gets, before it is drawn."""

from __future__ import annotations

from lorabench.corpora.planning import DatasetPlan
from lorabench.experiment.schema import Experiment
from lorabench.models.planning import ModelPlan
from lorabench.tokens.text_size import TextQuestion, TextSize


def train_text(
    experiment: Experiment, model: ModelPlan, dataset: DatasetPlan, train_bytes: int
) -> tuple[TextSize, bool]:
    """Size of the training text, and whether it is exact: it is once this text was tokenised for this model."""
    question = TextQuestion(
        model=model.name,
        model_revision=model.revision,
        dataset=dataset.name,
        dataset_revision=dataset.revision,
        text_field=experiment.text_field,
        train_bytes=train_bytes,
        largest_train_bytes=experiment.largest_train_bytes,
    )
    seen = question.answer()
    num_bytes = dataset.bytes_within("train", train_bytes)
    return (seen, True) if seen else (TextSize(num_bytes, model.tokens_in(num_bytes)), False)
