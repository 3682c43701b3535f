"""The usual way to train an adapter: PEFT around a Transformers model, trained by `transformers.Trainer`.

    python benchmarks/run_peer.py --model FOLDER --text FILE --precision fp32 --rank 16 --context-length 512 \
        --batch-size 2 --steps 12

Ends in one line of JSON: `tokens_per_second` (of the median step, two of warm-up left out), `losses`, `peak_rss_mb`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments, set_seed

NUM_WARMUP_STEPS = 2


class Clock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--weights", choices=("fp32", "bf16"), default="fp32", help="how the base is held")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--context-length", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        options.model, dtype=torch.bfloat16 if options.weights == "bf16" else torch.float32
    )
    adapter = LoraConfig(
        r=options.rank, lora_alpha=2 * options.rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=get_peft_model(model, adapter),
            train_dataset=read_windows(options),
            callbacks=[clock],
            args=TrainingArguments(
                output_dir=folder,
                max_steps=options.steps,
                per_device_train_batch_size=options.batch_size,
                learning_rate=3e-4,
                lr_scheduler_type="constant",
                bf16=options.precision == "bf16",
                use_cpu=not torch.cuda.is_available(),
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
        )
        trainer.train()
    seconds = [later - earlier for earlier, later in zip(clock.ends, clock.ends[1:], strict=False)]
    result = {
        "tokens_per_second": options.batch_size
        * options.context_length
        / statistics.median(seconds[NUM_WARMUP_STEPS - 1 :]),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result))


def read_windows(options: argparse.Namespace) -> list[dict[str, list[int]]]:
    """The text as windows of the context length, repeated where it is short."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    ids = tokenizer(options.text.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    wanted = options.steps * options.batch_size * options.context_length
    ids = (ids * (1 + wanted // len(ids)))[:wanted]
    starts = range(0, wanted, options.context_length)
    rows = [ids[start : start + options.context_length] for start in starts]
    return [{"input_ids": row, "labels": row} for row in rows]


if __name__ == "__main__":
    main()
