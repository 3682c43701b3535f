"""Output folders of runs that never happened, with per-document results whose truth is known.

`python -m tests.report.synthetic FOLDER --models 2 --seeds 3` writes one to look at.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lorabench.core.storage import sha256_file
from lorabench.experiment.adapter_axes import make_adapter
from lorabench.experiment.identity import run_id
from lorabench.experiment.schema import RunSpec, ScoringSettings, TrainingSettings
from lorabench.records.documents import effective_number
from lorabench.records.schema import (
    AdapterFacts,
    Budget,
    DatasetFacts,
    Drift,
    Environment,
    Evaluation,
    ModelFacts,
    RunRecord,
    Sample,
    Scores,
    Speed,
    Status,
)
from lorabench.records.store import RecordStore

Floats = npt.NDArray[np.float64]
LN2 = math.log(2.0)
ENVIRONMENT = Environment(
    hostname_sha256="b" * 16,
    device="cpu",
    device_name="AMD EPYC",
    num_devices=1,
    processor="AMD EPYC",
    num_cores=2,
    memory_bytes=24_000_000_000,
    operating_system="Linux 6.1",
    python_version="3.11.2",
    packages={"torch": "2.11.0"},
    lorabench_version="0.1.0",
    code_sha256="c" * 64,
    git_commit="d" * 40,
    git_dirty=False,
    command="lorabench run configs/experiments/synthetic.yaml",
)


@dataclass(frozen=True)
class Truth:
    """What the results are drawn from, in bits per byte."""

    base: float = 1.2
    gain: float = 0.15
    by_model: Mapping[str, float] = field(default_factory=dict)
    by_dataset: Mapping[str, float] = field(default_factory=dict)
    by_rank: Mapping[int, float] = field(default_factory=dict)
    by_learning_rate: Mapping[float, float] = field(default_factory=dict)
    by_place: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """Of a rank on one dataset."""
    elsewhere: Mapping[int, float] = field(default_factory=dict)
    """Of a rank, on the corpora it was not trained on; 0.03 where there is none."""
    on_test: Mapping[int, float] = field(default_factory=dict)
    """Of a rank, on test only."""
    seed_deviation: float = 0.002
    """Of a whole run: all its documents move together."""
    document_deviation: float = 0.25
    """Between documents, the same for every run."""
    noise: float = 0.02
    """Of one configuration on one document, whatever the seed."""
    log_length_deviation: float = 1.0
    """Of the documents' lengths, which are lognormal."""

    def bits(self, spec: RunSpec) -> float:
        """The true figure of a configuration."""
        shift = self.by_model.get(spec.model, 0.0) + self.by_dataset.get(spec.dataset, 0.0)
        shift += self.by_rank.get(spec.adapter.rank, 0.0) + self.by_place.get((spec.dataset, spec.adapter.rank), 0.0)
        return self.base - self.gain + shift + self.by_learning_rate.get(spec.training.learning_rate, 0.0)

    def base_bits(self, spec: RunSpec) -> float:
        """The true figure of the base."""
        return self.base + self.by_model.get(spec.model, 0.0) + self.by_dataset.get(spec.dataset, 0.0)


@dataclass
class SyntheticResults:
    """Writes runs into an output folder; everything follows from the seed."""

    output_dir: Path
    truth: Truth = field(default_factory=Truth)
    num_documents: int = 60
    seed: int = 0
    documents: bool = True
    """Whether per-document results are written."""
    also_on: tuple[str, ...] = ()
    environment: Environment = ENVIRONMENT
    experiment: str = "synthetic"
    steps: int = 40
    curve: tuple[float, ...] = (0.6, 0.9, 1.0)
    """Shares of the gain that validation has reached, evenly spaced along the run."""

    def __post_init__(self) -> None:
        self.store = RecordStore(self.output_dir)

    def grid(
        self,
        models: Sequence[str] = ("tiny",),
        datasets: Sequence[str] = ("news",),
        ranks: Sequence[int] = (8, 16),
        learning_rates: Sequence[float] = (1e-3,),
        seeds: Sequence[int] = (0,),
        adapter: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> list[RunRecord]:
        """Every combination; `changes` go into every record."""
        records = []
        for model, dataset, rank, rate, seed in itertools.product(models, datasets, ranks, learning_rates, seeds):
            spec = RunSpec(
                model=model,
                model_revision="1" * 40,
                dataset=dataset,
                dataset_revision="2" * 40,
                adapter=make_adapter({"rank": rank} | dict(adapter or {})),
                training=TrainingSettings(**{"learning_rate": rate, "precision": "fp32"} | dict(training or {})),
                evaluation=ScoringSettings(**dict(evaluation or {})),
                seed=seed,
            )
            records.append(self.add(spec, **changes))
        return records

    def add(self, spec: RunSpec, **changes: Any) -> RunRecord:
        """One run, completed unless `changes` say otherwise; a run that did not complete has no results."""
        identity = changes.get("run_id", run_id(spec))
        status = changes.get("status", Status.COMPLETED)
        values: dict[str, Any] = {
            "run_id": identity,
            "status": status,
            "experiment": self.experiment,
            "question": "Which is best?",
            "spec": spec,
            "environment": self.environment,
            "model": _model_facts(spec),
            "dataset": _dataset_facts(spec),
            "started_at": "2026-11-24T12:00:00+00:00",
            "finished_at": "2026-11-24T12:00:41+00:00",
        }
        if status in {Status.COMPLETED, Status.STOPPED_EARLY}:
            values |= self._measured(spec, identity)
            values["files"] = self.hashes(identity)
        record = RunRecord(**(values | changes))
        self.store.write(record)
        return record

    def hashes(self, run_id: str) -> dict[str, str]:
        """Of everything that lies beside the run's record now."""
        folder = self.store.run_dir(run_id)
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "record.json")
        return {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}

    def _measured(self, spec: RunSpec, identity: str) -> dict[str, Any]:
        tables = {split: self._table(spec, split) for split in ("validation", "test")}
        elsewhere = [name for name in self.also_on if name != spec.dataset]
        tables |= {f"also_on-{name}": self._table(spec, "validation", scored_on=name) for name in elsewhere}
        if self.documents:
            folder = self.store.run_dir(identity) / "documents"
            folder.mkdir(parents=True, exist_ok=True)
            for split, table in tables.items():
                table.to_parquet(folder / f"{split}.parquet", index=False)
        last = _total(tables["validation"], "nll")
        base = _total(tables["validation"], "base_nll")
        curve = [base.bits_per_byte + (last.bits_per_byte - base.bits_per_byte) * share for share in self.curve]
        evaluations = tuple(
            Evaluation(
                step=max(1, round(self.steps * (index + 1) / len(curve))),
                train_tokens_seen=1000 * (index + 1),
                validation=last.model_copy(update={"negative_log_likelihood": bits * LN2 * last.num_bytes}),
            )
            for index, bits in enumerate(curve)
        )
        self._write_metrics(spec, identity, evaluations)
        rank = spec.adapter.rank
        return {
            "base_validation": base,
            "base_test": _total(tables["test"], "base_nll"),
            "validation": last,
            "test": _total(tables["test"], "nll"),
            "num_test_scorings": 1,
            "evaluations": evaluations,
            "best_step": evaluations[-1].step,
            "last_training_loss": last.loss * 0.98,
            "drift": tuple(
                Drift(
                    dataset=name,
                    revision="2" * 40,
                    base=_total(tables[f"also_on-{name}"], "base_nll"),
                    adapted=_total(tables[f"also_on-{name}"], "nll"),
                    documents=f"documents/also_on-{name}.parquet",
                )
                for name in elsewhere
            ),
            "samples": (
                Sample(document_hash="f" * 64, prompt="Once upon", continuation=" a time", base_continuation=" the"),
            ),
            "adapter": AdapterFacts(
                trainable_parameters=300_000 * rank,
                alpha=spec.adapter.alpha_value,
                target_modules=("q_proj", "v_proj"),
                num_modules=60,
                adapter_bytes=1_200_000 * rank,
                execution_path="fast",
            ),
            "budget": Budget(
                train_bytes=spec.training.train_bytes,
                train_documents=100,
                train_tokens=spec.training.train_bytes // 4,
                num_rows=100,
                steps=self.steps,
                epochs=1,
                micro_batch_size=4,
                accumulation_steps=4,
                training_text_sha256="a" * 64,
            ),
            "speed": Speed(
                tokens_per_second=800.0 - 2.0 * rank,
                train_seconds=30.0 + rank,
                median_step_seconds=0.1,
                evaluation_seconds=4.0,
                evaluation_tokens_per_second=900.0,
                setup_seconds=1.0,
                total_seconds=41.0 + rank,
                peak_memory_bytes=1_500_000_000 + 5_000_000 * rank,
            ),
        }

    def _table(self, spec: RunSpec, split: str, scored_on: str | None = None) -> pd.DataFrame:
        """Per-document results: documents are the corpus's, noise the configuration's, a shift the run's."""
        truth, dataset = self.truth, scored_on or spec.dataset
        documents = self._random("documents", dataset, split)
        num_bytes = np.maximum(20, documents.lognormal(7.0, truth.log_length_deviation, self.num_documents)).astype(int)
        difficulty = documents.normal(0.0, truth.document_deviation, self.num_documents)
        without_seed = spec.model_copy(update={"seed": 0})
        own = self._random("configuration", run_id(without_seed), dataset, split).normal(
            0.0, truth.noise, self.num_documents
        )
        shift = self._random("seed", run_id(spec)).normal(0.0, truth.seed_deviation)
        figure = (
            truth.bits(spec)
            if scored_on is None
            else truth.base_bits(spec) + truth.elsewhere.get(spec.adapter.rank, 0.03)
        )
        figure += truth.on_test.get(spec.adapter.rank, 0.0) if split == "test" else 0.0
        return pd.DataFrame(
            {
                "document_hash": [
                    hashlib.sha256(f"{dataset} {split} {i}".encode()).hexdigest() for i in range(self.num_documents)
                ],
                "num_bytes": num_bytes,
                "num_tokens": np.maximum(1, num_bytes // 4),
                "num_words": np.maximum(1, num_bytes // 6),
                "nll": _nats(figure + difficulty + own + shift, num_bytes),
                "base_nll": _nats(truth.base_bits(spec) + difficulty, num_bytes),
            }
        )

    def _write_metrics(self, spec: RunSpec, identity: str, evaluations: Sequence[Evaluation]) -> None:
        random = self._random("metrics", run_id(spec))
        path = self.store.run_dir(identity) / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="ascii") as lines:
            for step in range(1, self.steps + 1):
                loss = 2.5 + 1.5 * math.exp(-step / 10) + float(random.normal(0, 0.05))
                values = {
                    "kind": "step",
                    "step": step,
                    "train_tokens": 100 * step,
                    "loss": loss,
                    "smoothed_loss": loss,
                    "learning_rate": spec.training.learning_rate * (1 - step / (self.steps + 1)),
                    "gradient_norm": float(random.lognormal(0, 0.2)),
                    "tokens_per_second": 800.0,
                    "seconds": 0.1,
                }
                lines.write(json.dumps(values) + "\n")
            for evaluation in evaluations:
                values = {
                    "kind": "evaluation",
                    "step": evaluation.step,
                    "train_tokens": evaluation.train_tokens_seen,
                    "validation_loss": evaluation.validation.loss,
                    "validation_bits_per_byte": evaluation.validation.bits_per_byte,
                }
                lines.write(json.dumps(values) + "\n")

    def _random(self, *key: str) -> np.random.Generator:
        digest = hashlib.sha256("\0".join((str(self.seed), *key)).encode("utf-8", "surrogatepass")).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _nats(bits_per_byte: Floats, num_bytes: npt.NDArray[np.int64]) -> Floats:
    return np.maximum(bits_per_byte, 0.01) * LN2 * num_bytes


def _total(table: pd.DataFrame, column: str) -> Scores:
    return Scores(
        negative_log_likelihood=float(table[column].sum()),
        num_tokens=int(table["num_tokens"].sum()),
        num_bytes=int(table["num_bytes"].sum()),
        num_words=int(table["num_words"].sum()),
        num_documents=len(table),
        effective_documents=effective_number(table["num_bytes"].to_numpy()),
    )


def _model_facts(spec: RunSpec) -> ModelFacts:
    return ModelFacts(
        name=spec.model,
        revision=spec.model_revision,
        source="mini",
        family="llama",
        num_parameters=135_000_000,
        licence="apache-2.0",
        tokenizer_sha256="e" * 64,
        prefix_token_id=0,
    )


def _dataset_facts(spec: RunSpec) -> DatasetFacts:
    sizes = {"train": 4_000_000, "validation": 500_000, "test": 500_000}
    return DatasetFacts(
        name=spec.dataset,
        revision=spec.dataset_revision,
        source="wheel",
        domain="news",
        licence="cc-by",
        num_documents={split: size // 1000 for split, size in sizes.items()},
        num_bytes=sizes,
        removed={"empty": 1, "exact_duplicates": 12, "near_duplicates": 7},
        content_sha256="a" * 64,
    )


def main() -> None:
    """Write a folder with a bit of everything."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    for name, default in (("models", 2), ("datasets", 3), ("ranks", 3), ("rates", 3), ("seeds", 2), ("documents", 60)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    models = [f"model-{index}" for index in range(chosen.models)]
    datasets = ["news", "wikipedia", "medical", "python-code", "stories", "technical-docs"][: chosen.datasets]
    truth = Truth(
        by_model={name: 0.05 * index for index, name in enumerate(models)},
        by_dataset={name: 0.1 * index for index, name in enumerate(datasets)},
        by_learning_rate={1e-4: 0.04, 1e-3: 0.0, 3e-3: 0.02},
        by_rank={8: 0.004, 16: 0.002},
    )
    results = SyntheticResults(chosen.folder, truth, num_documents=chosen.documents, also_on=tuple(datasets[:2]))
    results.grid(
        models,
        datasets,
        [8, 16, 32, 64][: chosen.ranks],
        [1e-4, 1e-3, 3e-3][: chosen.rates],
        range(chosen.seeds),
    )
    failures = ((Status.DIVERGED, "the loss was not finite at step 12"), (Status.OUT_OF_MEMORY, "memory ran out"))
    for status, reason in failures:
        results.grid(models[:1], datasets[:1], [128], [1e-2], status=status, status_reason=reason, seeds=[len(reason)])


if __name__ == "__main__":
    main()
