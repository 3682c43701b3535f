"""Writes short narratives with a grammar and a seed: text that nobody else has, so no model has seen it.

A story has a hero with a trade, a thing that turns up, an aim and a motive, a friend and a rival, trouble, an insight,
a turn and an ending. The grammar lies in stories_grammar.yaml. The same version writes the same stories everywhere.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from importlib import resources

import yaml

GENERATOR_VERSION = 1
"""Raise it when the grammar or this module would write other stories."""
NUM_STORIES = 900
SEED = 1848

_SLOT = re.compile(r"\{(\^?)(@?)([a-z_0-9]+)(\^?)\}")
_ARTICLE = re.compile(r"\b(a)\(n\) (\w)", re.IGNORECASE)
_PRONOUNS = ({"he": "he", "him": "him", "his": "his"}, {"he": "she", "him": "her", "his": "her"})
_SHE = {
    *("Mara", "Ines", "Lena", "Petra", "Nadia", "Clara", "Rosa", "Greta", "Yara", "Edith", "Thea", "Salma", "Ingrid"),
    *("Noor", "Hanna", "Judith", "Livia", "Paula", "Sonja", "Ursula", "Wanda", "Alma", "Dalia", "Freya", "Helga"),
}


def write_stories(num_stories: int = NUM_STORIES, seed: int = SEED) -> Iterator[str]:
    """`num_stories` narratives of several paragraphs; story i is the same whatever the number."""
    grammar = read_grammar()
    for number in range(num_stories):
        yield _Storyteller(grammar, random.Random(f"{seed}:{number}")).write()


class _Storyteller:
    """One story: its roles are chosen first, and no alternative is used twice while there are others."""

    def __init__(self, grammar: dict[str, list[str]], chance: random.Random) -> None:
        self._grammar = grammar
        self._chance = chance
        self._left: dict[str, list[str]] = {}
        hero = self._choose("hero_name")
        self._roles: dict[str, str] = {
            "hero": hero,
            "friend": self._choose("friend_name"),
            "rival": self._choose("rival_name"),
            **{role: self._choose(role) for role in ("trade", "town", "land", "object", "aim", "motive")},
            **_PRONOUNS[hero in _SHE],
        }

    def write(self) -> str:
        middle = ["dialogue", "rival", "trouble", "insight", "trouble", "insight", "dialogue"]
        parts = [
            "opening",
            "discovery",
            "goal",
            *middle[: self._chance.randint(4, len(middle))],
            "revelation",
            "ending",
        ]
        return "\n\n".join(self._finish(self._expand(f"{{{part}}}")) for part in parts)

    def _choose(self, symbol: str) -> str:
        if not self._left.get(symbol):
            alternatives = list(self._grammar[symbol])
            self._chance.shuffle(alternatives)
            self._left[symbol] = alternatives
        return self._left[symbol].pop()

    def _expand(self, template: str) -> str:
        return _SLOT.sub(self._fill, template)

    def _fill(self, slot: re.Match[str]) -> str:
        capital, role, symbol, capital_role = slot.groups()
        text = self._roles[symbol] if role else self._expand(self._choose(symbol))
        return text[:1].upper() + text[1:] if capital or capital_role else text

    def _finish(self, paragraph: str) -> str:
        def article(found: re.Match[str]) -> str:
            return f"{found[1]}{'n' if found[2] in 'aeiouAEIOU' else ''} {found[2]}"

        return _ARTICLE.sub(article, paragraph).replace("Mr..", "Mr.").strip()


def read_grammar() -> dict[str, list[str]]:
    """Symbol -> alternatives."""
    text = resources.files("lorabench.samplepack").joinpath("stories_grammar.yaml").read_text(encoding="utf-8")
    grammar: dict[str, list[str]] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return grammar
