"""How near a budget of drawn text comes to the whole validation split, beside whole documents that fit the budget.

python benchmarks/measure_drawing.py [--model gpt2-mini] [--corpora python-code medical] [--budgets 12000 50000]

Documents are shuffled many times, text is chosen as an experiment would, and bits per byte is compared with that of all
documents, uncut: the median half-width of its 95 % interval, the mean figure less that of all (for drawn text with what
the shorter context of a piece costs), 1.96 times the standard deviation of the figure over the shuffles, and the mean
effective number of documents. An interval is for documents like these, the scatter about this split's own figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from lorabench.analysis.statistics import estimate_figure
from lorabench.corpora.budget import take_budget
from lorabench.corpora.documents import Document
from lorabench.corpora.drawing import DrawnText, draw, piece_bytes
from lorabench.corpora.store import load_corpus
from lorabench.models.base import load_base
from lorabench.models.locate import locate_model
from lorabench.scoring.documents import score_documents
from lorabench.tokens.tokenizer import Tokeniser


class Scorer:
    """Nats of texts, each scored once."""

    def __init__(self, model: str, context_length: int) -> None:
        folder = locate_model(model).folder
        self.base, self.tokeniser = load_base(folder, precision="fp32", device="cpu"), Tokeniser(folder)
        self.context_length = context_length
        self.known: dict[str, float] = {}

    def nats(self, pieces: Sequence[Document]) -> list[float]:
        """Of each piece, in order."""
        new = list({piece.hash: piece for piece in pieces if piece.hash not in self.known}.values())
        if new:
            tokens, prefix = self.tokeniser.encode(new), self.tokeniser.prefix_token_id
            found = score_documents(self.base, new, tokens, prefix=prefix, context_length=self.context_length)
            self.known |= dict(zip((piece.hash for piece in new), found.nll.tolist(), strict=True))
        return [self.known[piece.hash] for piece in pieces]


def by_document(scorer: Scorer, text: DrawnText) -> tuple[float, float, float]:
    """Bits per byte, the half-width of its interval, and the effective number of documents."""
    nats = np.bincount(text.owners, scorer.nats(text.pieces))
    num_bytes = np.bincount(text.owners, [float(piece.num_bytes) for piece in text.pieces])
    found = estimate_figure(nats[None], num_bytes)
    effective = num_bytes.sum() ** 2 / (num_bytes**2).sum()
    return float(found.estimate), float(found.half_width()), float(effective)


def measure(scorer: Scorer, documents: Sequence[Document], budget: int, repetitions: int) -> list[float]:
    """Half-width, bias, scatter and effective number of whole documents, and of drawn pieces."""
    random = np.random.default_rng(0)
    rows: dict[str, list[tuple[float, float, float]]] = {"whole": [], "drawn": []}
    for _ in range(repetitions):
        shuffled = [documents[place] for place in random.permutation(len(documents))]
        rows["whole"].append(by_document(scorer, DrawnText.whole(take_budget(shuffled, budget))))
        rows["drawn"].append(by_document(scorer, draw(shuffled, budget)))
    truth = by_document(scorer, DrawnText.whole(documents))[0]
    figures = []
    for found in rows.values():
        bits, half, effective = np.array(found).T
        figures += [float(np.nanmedian(half)), bits.mean() - truth, 1.96 * bits.std(ddof=1), effective.mean()]
    return figures


def main() -> None:
    """Print one row for each corpus and budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt2-mini")
    parser.add_argument("--corpora", nargs="+", default=["python-code", "medical", "stories"])
    parser.add_argument("--budgets", nargs="+", type=int, default=[12_000, 50_000])
    parser.add_argument("--context-length", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=200)
    chosen = parser.parse_args()
    scorer = Scorer(chosen.model, chosen.context_length)
    columns = " | ".join(f"{how}: half-width | bias | scatter | effective" for how in ("whole", "drawn"))
    print(f"| corpus | budget | piece | {columns} |")
    print("| --- " + 10 * "| ---: " + "|")
    for corpus in chosen.corpora:
        documents = load_corpus(corpus, max_train_bytes=None).splits["validation"]
        for budget in chosen.budgets:
            figures = measure(scorer, documents, budget, chosen.repetitions)
            shown = " | ".join(
                f"{figure:.3f}" if place % 4 < 3 else f"{figure:.1f}" for place, figure in enumerate(figures)
            )
            print(f"| {corpus} | {budget} | {piece_bytes(budget)} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
