"""What is read first of a report, at the end of a command: the same sentences and figures as in summary and page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lorabench.cli.views.table import NARROW
from lorabench.cli.views.text import clean, styled
from lorabench.report.headline import MAX_CORPORA, MAX_MODELS, MAX_SENTENCES, Headline, Standing


def print_headline(first: Headline, console: Console) -> None:
    """Recommendation, base models, the best per corpus, what is not known and what to do next."""
    console.print()
    console.print(styled(f"{first.verdict}.", _style(first.standing, "bold")))
    if first.reasons:
        console.print(Text(f"({first.standing.words})", style="dim"))
    _sentences(first.reasons, console)
    console.print(Text.assemble("\n", ("Base models: ", "bold"), f"{'. '.join(map(clean, first.model_claims))}."))
    if first.models:
        console.print(_models(first))
    if first.corpora:
        console.print()
        console.print(_corpora(first, is_narrow=console.width < NARROW))
    if first.settings:
        console.print(Text.assemble(("\nSettings: ", "bold"), f"{'. '.join(map(clean, first.settings[:3]))}."))
    for title, sentences in (("Not known", first.unknown), ("Next", first.steps)):
        if sentences:
            console.print(Text(f"\n{title}:", style="bold"))
            _sentences(sentences, console)
    console.print()


def _style(standing: Standing, otherwise: str = "") -> str:
    """Green only for what was told apart from all others, with more than one seed."""
    return "bold green" if standing.is_decided else otherwise


def _sentences(sentences: Sequence[str], console: Console) -> None:
    for sentence in sentences[:MAX_SENTENCES]:
        console.print(Padding(Text(f"{clean(sentence)}."), (0, 0, 0, 2), expand=False))


def _models(first: Headline) -> Table:
    table = _table(["model", "mean bits/byte", "95 % interval", ""], num_texts=1)
    for item in first.models[:MAX_MODELS]:
        style = _style(item.standing)
        table.add_row(styled(item.model, style, 40), item.figure, item.span, Text(item.standing.words, style))
    return table


def _corpora(first: Headline, *, is_narrow: bool) -> Table:
    """In a narrow terminal without test and standing, which would break every line."""
    titles = ["best on", "take", "bits/byte", "gain", "on test", ""]
    table = _table(titles[:4] if is_narrow else titles, num_texts=2)
    for item in first.corpora[:MAX_CORPORA]:
        style = _style(item.standing)
        names = styled(item.corpus, style, 24), styled(item.choice, style, first.choice_length)
        others = () if is_narrow else (item.test, Text(item.standing.words, style))
        table.add_row(*names, item.figure, item.gain, *others)
    return table


def _table(titles: Sequence[str], num_texts: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if place < num_texts or not title else "right")
    return table
