"""Whether the fast path learns what PEFT learns: both trained on the same windows in the same order, step by step.

    python benchmarks/compare_losses.py --model smollm2-135m-instruct --precision bf16 --steps 200
    python benchmarks/compare_losses.py --model gpt2-mini --precision fp32 --steps 50

PEFT's side is the usual one: weights in float32, Transformers' own forward pass, under autocast where the precision is
bf16. The last line is JSON; `last_difference` compares the mean losses of the last ten steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from compare_with_peer import save_random
from torch import Tensor, nn

from lorabench.core.machine import prepare_process
from lorabench.corpora.documents import make_document
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import load_base
from lorabench.models.locate import locate_model
from lorabench.samplepack.stories import write_stories
from lorabench.tokens.packing import Segment, Tokens, make_batch
from lorabench.tokens.tokenizer import Tokeniser

LEARNING_RATE = 3e-4
NUM_AVERAGED = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--random-weights", action="store_true", help="the catalogue's size, no hub needed")
    parser.add_argument("--text", type=Path, help="a text file; stories where none is named")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--context-length", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    prepare_process()
    if options.random_weights:
        with tempfile.TemporaryDirectory() as temporary:
            compare(save_random(options.model, Path(temporary) / options.model), options)
    else:
        compare(locate_model(options.model).folder, options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Train both and print how far they are from one another."""
    text = "\n\n".join(write_stories(400)) if options.text is None else options.text.read_text(encoding="utf-8")
    (ids,) = Tokeniser(folder).encode([make_document(text)])
    batches = cut(ids, options.steps, options.batch_size, options.context_length)
    adapter = AdapterSettings(rank=options.rank)

    fast = load_base(folder, precision=options.precision, device="cpu")
    parameters = attach(fast, adapter, seed=0).parameters
    assert fast.execution.kind == "fast", fast.execution

    def our_loss(windows: Sequence[Tokens]) -> Tensor:
        batch = make_batch([[Segment(0, window, 0)] for window in windows])
        return fast.loss(batch) / batch.num_scored

    ours = train(our_loss, parameters, batches)
    fast.free()

    usual = load_base(folder, precision="fp32", device="cpu")
    parameters = attach(usual, adapter, seed=0).parameters

    def their_loss(windows: Sequence[Tokens]) -> Tensor:
        tokens = torch.tensor([window.tolist() for window in windows])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "bf16"):
            logits = usual.model(input_ids=tokens[:, :-1], use_cache=False).logits
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    theirs = train(their_loss, parameters, batches)
    print("step  lorabench     PEFT  difference")
    for step in sorted({*range(0, options.steps, max(1, options.steps // 10)), options.steps - 1}):
        print(f"{step + 1:4}  {ours[step]:9.5f}  {theirs[step]:7.5f}  {ours[step] / theirs[step] - 1:+10.4%}")
    first = [statistics.mean(losses[:NUM_AVERAGED]) for losses in (ours, theirs)]
    last = [statistics.mean(losses[-NUM_AVERAGED:]) for losses in (ours, theirs)]
    worst = max(abs(one / other - 1) for one, other in zip(ours, theirs, strict=True))
    result = {
        "model": options.model,
        "precision": options.precision,
        "steps": options.steps,
        "first_losses": first,
        "last_losses": last,
        "last_difference": last[0] / last[1] - 1,
        "largest_difference_of_a_step": worst,
    }
    print(json.dumps(result))


def cut(ids: Tokens, steps: int, batch_size: int, context_length: int) -> list[list[Tokens]]:
    """Windows of context_length + 1 tokens, each followed by the next; from the start again where the text ends."""
    count = (len(ids) - 1) // context_length
    if not count:
        raise SystemExit(f"the text has {len(ids)} tokens: less than a window of {context_length + 1}")
    windows = [ids[place * context_length : (place + 1) * context_length + 1] for place in range(count)]
    return [[windows[(step * batch_size + row) % count] for row in range(batch_size)] for step in range(steps)]


def train(
    loss_of: Callable[[Sequence[Tokens]], Tensor], parameters: list[nn.Parameter], batches: list[list[Tokens]]
) -> list[float]:
    """Each step's loss."""
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    losses = []
    for windows in batches:
        loss = loss_of(windows)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    return losses


if __name__ == "__main__":
    main()
