"""Records of runs that never happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lorabench.experiment.schema import EvaluationSettings, RunSpec, TrainingSettings
from lorabench.methods.settings import AdapterSettings
from lorabench.records.schema import Drift, Evaluation, RunRecord, Sample, Scores, Speed, Status
from tests.report.synthetic import ENVIRONMENT

MakeRecord = Callable[..., RunRecord]


def scores(bits_per_byte: float) -> Scores:
    """Scores with this figure over 1,000 bytes."""
    return Scores(
        negative_log_likelihood=bits_per_byte * 0.6931471805599453 * 1000,
        num_tokens=250,
        num_bytes=1000,
        num_words=180,
        num_documents=4,
    )


@pytest.fixture
def make_record() -> MakeRecord:
    def make(
        run_id: str, figure: float | None = 0.9, *, dataset: str = "news", rank: int = 8, **changes: Any
    ) -> RunRecord:
        spec = RunSpec(
            model="tiny",
            model_revision="1",
            dataset=dataset,
            dataset_revision="2",
            adapter=AdapterSettings(rank=rank),
            training=TrainingSettings(precision="fp32"),
            evaluation=EvaluationSettings(),
            seed=0,
        )
        measured = None if figure is None else scores(figure)
        values: dict[str, Any] = {
            "run_id": run_id,
            "status": Status.COMPLETED,
            "experiment": "first",
            "spec": spec,
            "base_validation": scores(1.0),
            "base_test": scores(1.1),
            "validation": measured,
            "test": measured,
            "evaluations": () if measured is None else (Evaluation(step=5, train_tokens_seen=9, validation=measured),),
            "drift": (Drift(dataset="stories", revision="1", base=scores(1.0), adapted=scores(1.25)),),
            "samples": (
                Sample(
                    document_hash="f" * 64, prompt="[bold]Once", continuation="upon\x1b[2J a", base_continuation="x"
                ),
            ),
            "speed": Speed(
                tokens_per_second=812.4,
                train_seconds=30.0,
                median_step_seconds=0.1,
                evaluation_seconds=4.0,
                evaluation_tokens_per_second=900.0,
                setup_seconds=1.0,
                total_seconds=41.0,
                peak_memory_bytes=1_500_000_000,
            ),
            "environment": ENVIRONMENT.model_copy(update={"git_dirty": True}),
            "started_at": "2026-11-24T12:00:00Z",
            "finished_at": "2026-11-24T12:00:41Z",
        }
        return RunRecord(**(values | changes))

    return make
