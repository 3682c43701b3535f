"""A run to track, and its record, without a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorabench.experiment.schema import EvaluationSettings, RunSpec, TrainingSettings
from lorabench.methods.settings import AdapterSettings
from lorabench.records.schema import (
    AdapterFacts,
    Budget,
    Evaluation,
    RunRecord,
    Sample,
    Scores,
    Speed,
    Status,
)
from lorabench.trackers.base import TrackedReport, TrackedRun
from tests.report.synthetic import ENVIRONMENT


@pytest.fixture(autouse=True)
def _no_tracking_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test depends on the developer's own W&B login, and none can reach a server."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))


@pytest.fixture
def spec() -> RunSpec:
    return RunSpec(
        model="tiny-model",
        model_revision="1",
        dataset="news",
        dataset_revision="2",
        adapter=AdapterSettings(rank=8),
        training=TrainingSettings(precision="fp32", learning_rate=1e-3),
        evaluation=EvaluationSettings(),
        seed=3,
    )


@pytest.fixture
def tracked_run(spec: RunSpec, tmp_path: Path) -> TrackedRun:
    run_id = "tiny-model_news_lora-r8-lr0.001-s3_0123456789"
    return TrackedRun(run_id, 1, "first-look", spec, tmp_path / "runs" / run_id, extra={"num_cores": 2})


@pytest.fixture
def record(spec: RunSpec, tracked_run: TrackedRun) -> RunRecord:
    validation = Scores(negative_log_likelihood=250.0, num_tokens=100, num_bytes=400, num_words=70, num_documents=3)
    return RunRecord(
        run_id=tracked_run.run_id,
        status=Status.COMPLETED,
        experiment="first-look",
        spec=spec,
        adapter=AdapterFacts(
            trainable_parameters=1234,
            alpha=16.0,
            target_modules=("q_proj",),
            num_modules=2,
            adapter_bytes=2_000_000,
            execution_path="fast",
        ),
        budget=Budget(
            train_bytes=1000,
            train_documents=9,
            train_tokens=300,
            num_rows=3,
            steps=30,
            epochs=1,
            micro_batch_size=1,
            accumulation_steps=1,
            training_text_sha256="0" * 64,
        ),
        base_validation=validation.model_copy(update={"negative_log_likelihood": 300.0}),
        validation=validation,
        test=validation.model_copy(update={"negative_log_likelihood": 260.0}),
        evaluations=(Evaluation(step=30, train_tokens_seen=300, validation=validation),),
        samples=(Sample(document_hash="a" * 64, prompt="Once <b>", continuation="[red]upon"),),
        speed=Speed(
            tokens_per_second=123.0,
            train_seconds=4.0,
            median_step_seconds=0.1,
            evaluation_seconds=1.0,
            evaluation_tokens_per_second=500.0,
            setup_seconds=0.5,
            total_seconds=6.0,
            peak_memory_bytes=3_000_000,
        ),
        environment=ENVIRONMENT,
        started_at="2026-11-24T12:00:00Z",
        finished_at="2026-11-24T12:00:06Z",
    )


@pytest.fixture
def report(tmp_path: Path) -> TrackedReport:
    """Of an experiment, as files that are there."""
    files = tmp_path / "results" / "report.html", tmp_path / "results" / "results_summary.md"
    files[0].parent.mkdir()
    for file in files:
        file.write_text(f"{file.name} <b>", encoding="utf-8")
    return TrackedReport("first look", files)


def step_values(step: int) -> dict[str, float | int]:
    """Figures of one step that differ from every other step's."""
    return {
        "step": step,
        "loss": 3.0 / step,
        "smoothed_loss": 3.1 / step,
        "learning_rate": 1e-3 * step,
        "gradient_norm": 0.5 + step,
        "tokens_per_second": 100.0 + step,
        "train_tokens": 512 * step,
        "seconds": 0.01 * step,
        "loss_scale": 1024.0 * step,
    }
