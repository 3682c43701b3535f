from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from lorabench.analysis.statistics import estimate_figure
from lorabench.corpora.budget import take_budget
from lorabench.corpora.documents import Document, make_document
from lorabench.corpora.drawing import (
    LONGEST_PIECE,
    SHORTEST_PIECE,
    DrawnText,
    draw,
    piece_bytes,
    take_text,
)
from lorabench.scoring.documents import DocumentScores

LINE = "{:04d} {:06d} déjà vu 🙂 日本語 fox\n"
LINE_BYTES = len(LINE.format(0, 0).encode())


def document(num_bytes: int, number: int = 0) -> Document:
    """Lines of words, not all of them ASCII, of about so many bytes in all; each line is there once."""
    return make_document("".join(LINE.format(number, line) for line in range(max(1, num_bytes // LINE_BYTES))))


def place(piece: Document) -> tuple[int, int]:
    """The number of the piece's document and where in it, in bytes, the piece begins."""
    return int(piece.text[:4]), int(piece.text[5:11]) * LINE_BYTES


def corpus(sizes: Sequence[int]) -> list[Document]:
    return sorted((document(size, number) for number, size in enumerate(sizes)), key=lambda item: item.hash)


CORPORA = {
    "one huge among small": [200_000, *[300] * 40],
    "one alone": [150_000],
    "many tiny": [60] * 3000,
    "of all lengths": [int(10 ** (1.5 + 3.3 * i / 30)) for i in range(30)],
    "nearly all of one piece": [510] * 300,
}


def num_bytes(drawn: DrawnText) -> int:
    return sum(piece.num_bytes for piece in drawn.pieces)


def check(documents: list[Document], drawn: DrawnText, budget: int) -> None:
    """Text of these documents, whole characters, within the budget, and a hash for each document."""
    assert num_bytes(drawn) <= budget
    assert all(piece.text.strip() and piece == make_document(piece.text) for piece in drawn.pieces)
    assert drawn.owners == sorted(drawn.owners)
    assert sorted(set(drawn.owners)) == list(range(len(drawn.hashes)))
    assert len(set(drawn.hashes)) == len(drawn.hashes) == len(drawn.document_bytes)
    sizes = {item.num_bytes for item in documents}
    assert sizes.issuperset(drawn.document_bytes)


@pytest.mark.parametrize("sizes", CORPORA.values(), ids=CORPORA)
@pytest.mark.parametrize("budget", [700, 4_000, 12_000, 50_000, 120_000])
def test_a_budget_is_nearly_full_and_never_overdrawn(sizes: list[int], budget: int) -> None:
    documents = corpus(sizes)
    drawn = draw(documents, budget)
    check(documents, drawn, budget)
    assert num_bytes(drawn) > budget - 1.5 * piece_bytes(budget)
    assert max(piece.num_bytes for piece in drawn.pieces) <= piece_bytes(budget)
    assert draw(documents, budget) == drawn


@pytest.mark.parametrize("budget", range(1, 40))
def test_the_smallest_budgets_are_not_overdrawn(budget: int) -> None:
    for documents in (corpus([300] * 3), [make_document("🙂" * 50)]):
        drawn = draw(documents, budget)
        check(documents, drawn, budget)
        assert drawn.pieces or budget < 4


@pytest.mark.parametrize("sizes", CORPORA.values(), ids=CORPORA)
def test_what_a_budget_pays_for_whole_is_not_cut(sizes: list[int]) -> None:
    documents = corpus(sizes)
    total = sum(item.num_bytes for item in documents)
    for budget in (total, total + 1, 10**12):
        assert draw(documents, budget) == DrawnText.whole(documents)
    less = draw(documents, total - 1)
    check(documents, less, total - 1)
    assert num_bytes(less) > total - 2 * LONGEST_PIECE


@pytest.mark.parametrize("name", ["one huge among small", "of all lengths", "one alone"])
def test_every_byte_can_be_drawn_and_none_is_preferred(name: str) -> None:
    documents = corpus(CORPORA[name])
    times = {int(item.text[:4]): np.zeros(item.num_bytes) for item in documents}
    budgets = range(12_000, 12_400)
    for budget in budgets:
        for piece in draw(documents, budget).pieces:
            number, start = place(piece)
            times[number][start : start + piece.num_bytes] += 1
    expected = len(budgets) * 12_200 / sum(item.num_bytes for item in documents)
    assert min(counts.min() for counts in times.values()) > 0
    for counts in times.values():
        assert counts.mean() == pytest.approx(expected, abs=5 * expected**0.5 + 0.05 * expected)


@pytest.mark.parametrize("budget", [4_000, 12_000, 100_000])
def test_pieces_are_spread_evenly(budget: int) -> None:
    documents = corpus([int(10 ** (2 + 3 * i / 200)) for i in range(200)])
    starts = np.cumsum([0, *[item.num_bytes for item in documents]])
    start_of = {int(item.text[:4]): start for item, start in zip(documents, starts, strict=False)}
    found = [place(piece) for piece in draw(documents, budget).pieces]
    places = [start_of[number] + start for number, start in found]
    assert np.diff(places).max() < 3 * starts[-1] / len(places)
    shares = np.histogram(places, bins=5, range=(0, starts[-1]))[0] / len(places)
    assert shares == pytest.approx([0.2] * 5, abs=0.1)


def test_pieces_end_where_lines_do_else_words_else_characters() -> None:
    in_lines = draw([document(100_000)], 12_000)
    assert all(piece.text.endswith("\n") for piece in in_lines.pieces)
    words = " ".join(f"word{i}" for i in range(20_000))
    for piece in draw([make_document(words)], 12_000).pieces:
        assert piece.text.split()[0].startswith("word")
        assert f"{piece.text} " in words or words.endswith(piece.text)
    unbroken = "".join(chr(0x4E00 + i % 20_000) for i in range(50_000))
    assert all(piece.text in unbroken for piece in draw([make_document(unbroken)], 12_000).pieces)


def test_pieces_of_a_document_are_of_nearly_one_size() -> None:
    sizes = [piece.num_bytes for piece in draw([document(90_000)], 80_000).pieces]
    assert max(sizes) <= piece_bytes(80_000)
    assert min(sizes) > 0.7 * piece_bytes(80_000)


def test_nothing_but_white_space_is_no_piece() -> None:
    gaps = make_document("begin" + "\n" * 30_000 + "middle" + " " * 30_000 + "end")
    for budget in (700, 12_000, 50_000):
        drawn = draw([gaps], budget)
        assert {piece.text.strip() for piece in drawn.pieces} <= {"begin", "middle", "end"}
        check([gaps], drawn, budget)


def test_a_hash_tells_what_was_drawn() -> None:
    documents = corpus([40_000] * 5)
    one, two = draw(documents, 12_000), draw(documents, 12_500)
    assert not set(one.hashes) & set(two.hashes)
    assert not set(one.hashes) & {item.hash for item in documents}
    short = corpus([300] * 100)
    assert set(draw(short, 12_000).hashes) < {item.hash for item in short}
    same = [make_document("x = 1\n" * 5000), make_document("x = 1\n" * 5001)]
    assert len(set(draw(same, 30_000).hashes)) == 2


def test_the_length_of_a_piece_follows_from_the_budget_alone() -> None:
    lengths = [piece_bytes(budget) for budget in (100, 12_000, 64_000, 200_000, 10**9)]
    assert lengths == [100, SHORTEST_PIECE, 1000, 3125, LONGEST_PIECE]


def test_training_text_is_of_whole_documents() -> None:
    documents = corpus(CORPORA["of all lengths"])
    assert take_text(documents, "train", 20_000) == DrawnText.whole(take_budget(documents, 20_000))
    assert take_text(documents, "test", 20_000) == draw(documents, 20_000)


def test_no_documents_no_text() -> None:
    assert draw([], 100) == DrawnText([], [], [], [])


def scored(drawn: DrawnText, nats: Sequence[float]) -> DocumentScores:
    """Scores where each byte of a document costs the nats of its number."""
    sizes = np.array([piece.num_bytes for piece in drawn.pieces], dtype=np.int64)
    nll = np.array([nats[place(piece)[0]] for piece in drawn.pieces]) * sizes
    return DocumentScores(("",) * len(sizes), nll, sizes // 3, sizes, sizes // 5, sizes).of_documents(drawn)


def test_results_are_summed_by_document() -> None:
    documents = corpus([3_000, 40_000, 200, 90_000])
    drawn = draw(documents, 30_000)
    scores = scored(drawn, [0.5] * 4)
    assert scores.hashes == tuple(drawn.hashes)
    for number, size in enumerate(scores.num_bytes):
        own = [piece.num_bytes for piece, owner in zip(drawn.pieces, drawn.owners, strict=True) if owner == number]
        assert size == sum(own)
    assert scores.nll == pytest.approx(0.5 * scores.num_bytes)
    total = scores.total()
    assert total.num_documents == len(drawn.hashes)
    assert total.effective_documents == pytest.approx(scores.num_bytes.sum() ** 2 / (scores.num_bytes**2).sum())
    assert list(scores.document_bytes) == drawn.document_bytes


def test_intervals_are_narrower_and_the_figure_is_not_shifted() -> None:
    """Against whole documents that fit, where long ones are easier to predict, as they are in real source code."""
    errors: dict[str, list[float]] = {"drawn": [], "whole": []}
    halves: dict[str, list[float]] = {"drawn": [], "whole": []}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        documents = corpus(np.minimum(120_000, rng.lognormal(9.0, 1.2, 50)).astype(int))
        sizes = {int(item.text[:4]): item.num_bytes for item in documents}
        nats = [float(rng.normal(1.0, 0.15) - 0.1 * np.log10(sizes[number] / 8000)) for number in range(50)]
        truth = sum(nats[number] * size for number, size in sizes.items()) / sum(sizes.values()) / np.log(2)
        whole = DrawnText.whole(take_budget(documents, 12_000))
        for name, drawn in (("drawn", draw(documents, 12_000)), ("whole", whole)):
            scores = scored(drawn, nats)
            found = estimate_figure(scores.nll[None], scores.num_bytes.astype(float)).interval(len(scores.nll), 1)
            errors[name].append(found.estimate - truth)
            if found.low is not None and found.high is not None:
                halves[name].append((found.high - found.low) / 2)
    noise = np.std(errors["drawn"]) / len(errors["drawn"]) ** 0.5
    assert np.median(halves["drawn"]) < 0.6 * np.median(halves["whole"])
    assert abs(np.mean(errors["drawn"])) < 3 * noise < 0.03
    assert np.mean(errors["whole"]) > 0.03
