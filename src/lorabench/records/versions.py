"""Makes JSON of a record, and a record of its JSON, whichever version of the schema wrote it."""

from __future__ import annotations

import math
from typing import Any

from lorabench.core.revisions import content_name
from lorabench.records.schema import SCHEMA_VERSION, RunRecord, Scores

SCORED = ("base_validation", "base_test", "validation", "test")


def record_to_json(record: RunRecord) -> dict[str, Any]:
    """Plain values, with the derived figures beside each sum for readers of other programs."""
    values: dict[str, Any] = record.model_dump(mode="json")
    for key in SCORED:
        scores = getattr(record, key)
        if scores is not None:
            values[key]["derived"] = derived_figures(scores)
    return values


def derived_figures(scores: Scores) -> dict[str, float | None]:
    """The figures that follow from the sums, infinity as null (JSON has none)."""
    names = ("loss", "perplexity", "bits_per_byte", "bits_per_token", "word_perplexity", "byte_perplexity")
    return {name: value if math.isfinite(value := getattr(scores, name)) else None for name in names}


def record_from_json(values: dict[str, Any]) -> RunRecord:
    """The record that `record_to_json` wrote, of this version of the schema or an older one.

    `values` may be changed. Raises ValueError (pydantic's ValidationError), KeyError, TypeError or AttributeError for
    what is no record.
    """
    for key in SCORED:
        if values.get(key):
            values[key].pop("derived", None)
    if values["schema_version"] < SCHEMA_VERSION:
        _upgrade_from_1(values)
    return RunRecord.model_validate(values)


def _upgrade_from_1(values: dict[str, Any]) -> None:
    """In version 1 what only measures was part of the specification, and measured in the run itself."""
    spec, environment = values["spec"], values["environment"]
    evaluation = spec["evaluation"]
    spec.pop("also_on_revisions", None)
    evaluation.pop("also_on", None)
    num_samples = evaluation.pop("samples", 0)
    measurement = {
        "validation_bytes": evaluation["validation_bytes"],
        "context_length": spec["training"]["context_length"],
        "stride": evaluation["stride"],
        "precision": spec["training"]["precision"],
        "quantization": spec["quantization"],
        **{key: environment[key] for key in ("device", "device_name", "lorabench_version", "code_sha256")},
        "measured_at": values.get("finished_at") or values["started_at"],
    }
    for drift in values.get("drift", ()):
        drift |= {"documents": f"documents/also_on-{drift['dataset']}.parquet", "measurement": measurement}
    if values["status"] == "completed" and num_samples:
        values["sampling"] = {"num_asked": num_samples, "measurement": measurement}
    _name_by_content(values)
    values["schema_version"] = SCHEMA_VERSION


def _name_by_content(values: dict[str, Any]) -> None:
    """Files and folders of the user's own had names without their content's hash. `references` tells which are such."""
    spec, references = values["spec"], values.get("references") or {}
    for kind in ("model", "dataset"):
        if kind in references:
            spec[kind] = content_name(spec[kind], spec[f"{kind}_revision"])
            if values.get(kind):
                values[kind]["name"] = spec[kind]
    for drift in values.get("drift", ()):
        if path := references.pop(f"also_on:{drift['dataset']}", None):
            drift["dataset"] = content_name(drift["dataset"], drift["revision"])
            references[f"also_on:{drift['dataset']}"] = path
