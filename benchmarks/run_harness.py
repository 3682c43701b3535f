"""Scores local .jsonl files with EleutherAI's lm-evaluation-harness: the yardstick of our own scoring.

Reads JSON objects on standard input, one a line, `{"model": FOLDER, "files": [...], "max_length": N,
"model_args": {...}}`, and answers each with a line, a list with one object per file: the harness's own figures, the
seconds from texts to log-likelihoods, start-up left out, and the log-likelihood of each document. Works offline.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

BATCH_SIZE = 4
METRICS = ("word_perplexity", "byte_perplexity", "bits_per_byte")


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # the harness prints
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HF_HOME": folder, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        for index, line in enumerate(sys.stdin):
            request = json.loads(line)
            model = load(request["model"], request["max_length"], json.dumps(request.get("model_args", {})))
            print(json.dumps(evaluate(model, request["files"], Path(folder) / str(index))), file=answers, flush=True)


@lru_cache(maxsize=1)
def load(folder: str, max_length: int, model_args: str) -> Any:
    """The harness's model, kept for the next request."""
    from lm_eval.models.huggingface import HFLM

    class TimedModel(HFLM):  # type: ignore[misc]
        seconds = 0.0
        processor_seconds = 0.0

        def loglikelihood_rolling(self, *arguments: Any, **options: Any) -> Any:
            started, processor_started = time.perf_counter(), time.process_time()
            answer = super().loglikelihood_rolling(*arguments, **options)
            self.seconds = time.perf_counter() - started
            self.processor_seconds = time.process_time() - processor_started
            return answer

    arguments = json.loads(model_args)
    return TimedModel(
        pretrained=folder, dtype="float32", device="cpu", batch_size=BATCH_SIZE, max_length=max_length, **arguments
    )


def evaluate(model: Any, files: list[str], folder: Path) -> list[dict[str, Any]]:
    """The harness's figures for each file."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    answers = []
    for index, path in enumerate(files):
        name = f"local_text_{index}"
        tasks = folder / name
        tasks.mkdir(parents=True)
        (tasks / f"{name}.yaml").write_text(task(name, path), encoding="utf-8")
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        results = simple_evaluate(model=model, tasks=[name], task_manager=manager, bootstrap_iters=0)
        figures = results["results"][name]
        samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
        answers.append(
            {metric: figures[f"{metric},none"] for metric in METRICS}
            | {
                "seconds": model.seconds,
                "processor_seconds": model.processor_seconds,
                "loglikelihoods": [sample["bits_per_byte"][0] for sample in samples],
            }
            | {"num_words": sum(sample["word_perplexity"][1] for sample in samples)}
            | {"num_bytes": sum(sample["bits_per_byte"][1] for sample in samples)}
        )
    return answers


def task(name: str, path: str) -> str:
    """A rolling log-likelihood task on the field `text` of a .jsonl file."""
    metrics = "".join(f"  - metric: {metric}\n" for metric in METRICS)
    return (
        f"task: {name}\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {json.dumps(path)}}}}}\n"
        "test_split: test\n"
        "output_type: loglikelihood_rolling\n"
        'doc_to_text: ""\n'
        "doc_to_target: text\n"
        f"metric_list:\n{metrics}"
    )


if __name__ == "__main__":
    main()
