"""docs/record.md tells of every field, under its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from lorabench.experiment.schema import EvaluationSettings, RunSpec, TrainingSettings
from lorabench.methods.settings import AdapterSettings
from lorabench.records import schema

DOCUMENT = (Path(__file__).parents[2] / "docs" / "record.md").read_text(encoding="utf-8")
PARTS = [value for value in vars(schema).values() if isinstance(value, type) and issubclass(value, BaseModel)]


@pytest.mark.parametrize(
    "part", [*PARTS, RunSpec, AdapterSettings, TrainingSettings, EvaluationSettings], ids=lambda part: part.__name__
)
def test_every_field_is_documented(part: type[BaseModel]) -> None:
    missing = [name for name in part.model_fields if f"{name}`" not in DOCUMENT and f"`{name}." not in DOCUMENT]
    assert missing == []


@pytest.mark.parametrize("status", schema.Status)
def test_every_state_is_documented(status: schema.Status) -> None:
    assert f"`{status.value}`" in DOCUMENT
