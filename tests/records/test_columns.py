"""Every setting and figure is described once, and nothing that has a description is left out of a table."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from lorabench.core.settings import Frozen
from lorabench.experiment.schema import EvaluationSettings, TrainingSettings
from lorabench.methods.settings import AdapterSettings
from lorabench.records.columns import AXES, CHANGE, COLUMNS, SETTINGS, axis_values
from lorabench.report.table import csv_columns
from lorabench.trackers.summary import final_facts, final_values
from tests.report.synthetic import SyntheticResults

SECTIONS: dict[str, type[Frozen]] = {
    "adapter": AdapterSettings,
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
}
PUBLISHED = (
    "run_id,status,status_reason,experiment,model,model_revision,model_parameters,dataset,dataset_revision,method,rank,"
    "alpha,dropout,target_modules,trainable_parameters,quantization,precision,learning_rate,batch_size,context_length,"
    "epochs,seed,train_bytes,train_tokens,steps,base_val_bits_per_byte,base_val_perplexity,val_loss,val_perplexity,"
    "val_bits_per_byte,val_bits_per_token,val_word_perplexity,test_loss,test_perplexity,test_bits_per_byte,"
    "tokens_per_second,train_seconds,peak_memory_mb,adapter_mb,device,num_devices,lorabench_version,git_commit,"
    "started_at,finished_at,device_name,execution_path,base_test_bits_per_byte,num_test_scorings,attempt,notes,"
    "micro_batch_size,schedule,warmup_ratio,weight_decay,max_grad_norm,validation_bytes,test_bytes,times,stride,"
    "also_on,samples,num_resumed"
)
"""The header as it was first published: spreadsheets and scripts rely on the order."""


def undescribed(section: str, settings: type[Frozen]) -> str:
    """One sentence for the first setting of the section that no table would show; empty where there is none."""
    measured = ("also_on", "samples", "tasks", "task_examples", "generate")
    described = {setting.path for setting in SETTINGS} | {f"evaluation.{key}" for key in measured}
    for name in settings.model_fields:
        if f"{section}.{name}" not in described or name not in COLUMNS:
            return f"{section}.{name} has no description: give it one in lorabench/record/columns.py"
    return ""


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_described_and_in_the_csv(section: str) -> None:
    assert undescribed(section, SECTIONS[section]) == ""
    assert set(SECTIONS[section].model_fields) <= set(csv_columns())


def test_a_setting_without_a_description_is_named() -> None:
    class More(TrainingSettings):
        lookahead: int = 3

    assert undescribed("training", More) == (
        "training.lookahead has no description: give it one in lorabench/record/columns.py"
    )


def test_the_csv_begins_with_the_columns_published_before(tmp_path: Path) -> None:
    records = SyntheticResults(tmp_path, documents=False).grid(
        training={"schedule": "linear", "warmup_ratio": 0.2, "weight_decay": 0.01, "max_grad_norm": 0.5},
        evaluation={"stride": 64, "times": 3},
    )
    from lorabench.report.table import write_csv

    write_csv(records, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(encoding="utf-8") as lines:
        header = lines.readline().strip()
        lines.seek(0)
        row = next(csv.DictReader(lines))
    assert header.startswith(PUBLISHED)
    assert set(header.split(",")) == set(COLUMNS)
    expected = {"schedule": "linear", "warmup_ratio": "0.2", "weight_decay": "0.01", "max_grad_norm": "0.5"}
    expected |= {"stride": "64", "times": "3", "validation_bytes": "200000", "test_bytes": "200000", "samples": "1"}
    assert expected == {key: row[key] for key in expected}


def test_every_column_can_be_told_apart_and_read(tmp_path: Path) -> None:
    (record,) = SyntheticResults(tmp_path, also_on=("news", "stories")).grid(ranks=[8])
    assert len({column.title for column in COLUMNS.values()}) == len(COLUMNS)
    assert len({column.short_title for column in COLUMNS.values()}) == len(COLUMNS)
    values = {key: column.read(record) for key, column in COLUMNS.items()}
    assert values["also_on"] == "stories"
    assert {key for key, value in values.items() if value is None} == {
        *("status_reason", "method_settings", "micro_batch_size", "stride", "notes", "tasks", "task_examples"),
        *("generate", "val_answers", "base_val_answers", "test_answers", "base_test_answers", "base_mb"),
    }


def test_the_text_trained_on_is_not_the_text_asked_for(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, documents=False)
    (record,) = results.grid(ranks=[8], training={"train_bytes": 5000})
    assert record.budget is not None
    less = record.model_copy(update={"budget": record.budget.model_copy(update={"train_bytes": 4321})})
    none = record.model_copy(update={"budget": None})
    assert [COLUMNS["train_bytes"].read(item) for item in (less, none)] == [4321, None]
    assert {axis_values(item.spec)["train_bytes"] for item in (less, none)} == {5000}


def test_what_a_full_run_does_not_use_is_no_value_of_its_axes(tmp_path: Path) -> None:
    (record,) = SyntheticResults(tmp_path, documents=False).grid(ranks=[8], adapter={"method": "full"})
    values = axis_values(record.spec)
    assert list(values) == list(AXES)
    without = {key for key, value in values.items() if value is None}
    assert without - {"micro_batch_size", "method_settings"} == {"rank", "alpha", "dropout", "target_modules"}


def test_trackers_sum_a_run_up_in_the_columns_of_the_csv(tmp_path: Path) -> None:
    (record,) = SyntheticResults(tmp_path, documents=False).grid(ranks=[8])
    values = final_values(record) | final_facts(record)
    assert values.pop(CHANGE.key) == CHANGE.read(record)
    assert {key: COLUMNS[key].read(record) for key in values} == values
    assert {"base_test_bits_per_byte", "val_bits_per_byte", "test_loss", "steps", "model_parameters"} <= set(values)


def test_descriptions_need_no_torch() -> None:
    code = "import sys, lorabench.records.columns; print(sorted({'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
