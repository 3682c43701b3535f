"""How far bfloat16 evaluation is from float32: bits per byte of a model on the corpora of the sample pack.

    python benchmarks/compare_precisions.py --model smollm2-135m-instruct --bytes 10000

The last line is JSON. The measure of success is in docs/protocol.md: at most 0.0005 bits per byte on each corpus.

A processor without bfloat16 units takes far longer for such products. There they are computed as the units compute
them: on inputs rounded to bfloat16, summed in float32, and the result rounded. The first line says which it was.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from lorabench.core.device import choose_device
from lorabench.core.machine import prepare_process
from lorabench.corpora.drawing import draw
from lorabench.corpora.store import load_corpus
from lorabench.models.base import Precision, load_base
from lorabench.models.locate import locate_model
from lorabench.samplepack.mini import CORPORA
from lorabench.scoring.documents import score_documents
from lorabench.tokens.tokenizer import Tokeniser

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


class EmulatedUnits(TorchFunctionMode):
    """Matrix products of bfloat16 tensors, computed in float32 and rounded once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func not in (torch.mm, torch.bmm, torch.addmm) or args[-1].dtype != torch.bfloat16:
            return func(*args, **options)
        out = options.pop("out", None)
        result = func(*(tensor.float() for tensor in args), **options).bfloat16()
        return result if out is None else out.copy_(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--bytes", type=int, default=10_000, help="of validation text, for each corpus")
    parser.add_argument("--context-length", type=int, default=512)
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA))
    options = parser.parse_args()
    prepare_process()
    folder = locate_model(options.model).folder
    tokeniser = Tokeniser(folder)
    texts = {
        name: draw(load_corpus(name, max_train_bytes=None).splits["validation"], options.bytes).pieces
        for name in options.corpora
    }
    figures: dict[str, dict[str, float]] = {name: {} for name in texts}
    device = choose_device()
    emulated = not device.supports_bf16
    print("bfloat16 products are emulated" if emulated else "bfloat16 products run on units of their own")
    for precision in PRECISIONS:
        base = load_base(folder, precision=precision, device=str(device))
        for name, documents in texts.items():
            started = time.perf_counter()
            with EmulatedUnits() if emulated else nullcontext():
                scores = score_documents(
                    base,
                    documents,
                    tokeniser.encode(documents),
                    prefix=tokeniser.prefix_token_id,
                    context_length=options.context_length,
                ).total()
            figures[name][precision] = scores.bits_per_byte
            seconds = time.perf_counter() - started
            print(
                f"{precision}  {name:16} {scores.bits_per_byte:.5f} bits per byte, {scores.num_bytes:,} bytes, "
                f"{scores.num_tokens / seconds:,.0f} tokens/s",
                flush=True,
            )
        base.free()
    for name, figure in figures.items():
        print(f"{name:16} bf16 - fp32 = {figure['bf16'] - figure['fp32']:+.5f}")
    print(json.dumps({name: figure["bf16"] - figure["fp32"] for name, figure in figures.items()}))


if __name__ == "__main__":
    main()
