"""Turns the sample pack's files into documents: news articles, Wikipedia pages, clinical definitions."""

from __future__ import annotations

import bz2
import contextlib
import csv
import io
import itertools
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from mwparserfromhell.nodes import Template

Pair = tuple[str, str]
"""A question and its answer."""
MIN_PAGE_CHARACTERS = 500
MAX_FIELD_CHARACTERS = 10_000_000

_SECTION_TAIL = re.compile(
    r"^=+ *(?:See also|References|External links|Further reading|Notes|Bibliography|Sources|Footnotes) *=+ *$",
    re.MULTILINE | re.IGNORECASE,
)
_HEADING = re.compile(r"^ *(=+) *(.*?) *\1 *$", re.MULTILINE)
_TABLE = re.compile(r"\{\|(?:(?!\{\||\|\}).)*\|\}", re.DOTALL)
_FILE_LINK = re.compile(
    r"\[\[ *(?:File|Image|Category|Media) *:(?:[^\[\]]|\[\[[^\[\]]*\]\]|\[[^\[\]]*\])*\]\]", re.IGNORECASE
)
_LEFTOVER_LINE = re.compile(
    r"^(?:(?:thumb|right|left|center|centre|\d+px)\b[^\n]*\||[|!{}*#:;\s]*$|[a-z-]{2,12}:[^\s].*$|__[A-Z]+__$)",
    re.MULTILINE,
)
_INDENT = re.compile(r"^(?:[*#:;]+ *| +)", re.MULTILINE)
_UNPARSED = re.compile(r"<ref[^<>\n]*>[^<>\n]*</ref>|</?[a-z]+[^<>\n]{0,200}>|\{\{[^{}\n]*\}\}|'{2,}")
_EMPTY_BRACKETS = re.compile(r" ?\((?:[\s,;:]|or|and)*\)")
_TIDYING = (
    (re.compile(r"\([ ,;:]+(?=\S)"), "("),
    (re.compile(r"[ ,;]+\)"), ")"),
    (re.compile(r"(?<=\S) +(?=[,;.] )"), ""),
    (re.compile(r"(?<=\S)  +"), " "),
    (re.compile(r"[ \t]+\n"), "\n"),
    (re.compile(r"\n{3,}"), "\n\n"),
)
_NAMED = {"nihongo": 0, "nowrap": 0, "angbr": 0, "vr": 0, "sc": 0, "smaller": 0, "val": 0, "lang": 1, "transl": -1}
"""Templates that stand for words of their sentence: which of their values those are."""
_MEASURE = {"convert", "cvt"}
_RANGE_WORD = re.compile(r"[\d.,/+\u2212-]+|to|and|or|by|x|\u2013|to\(-\)")


def read_csv_in_zip(content: bytes) -> Iterator[str]:
    """The column `text` of the CSV inside a zip archive."""
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".csv"))
        with archive.open(name) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                yield row["text"].strip()


def read_wikipedia_dump(content: bytes) -> Iterator[str]:
    """The articles of a compressed MediaWiki dump as plain text: title, then the prose without markup.

    Redirects, pages outside the article namespace and very short pages are left out.
    """
    with bz2.open(io.BytesIO(content)) as dump:
        for _, element in ElementTree.iterparse(dump, events=("end",)):
            if not element.tag.endswith("}page"):
                continue
            fields = {child.tag.rpartition("}")[2]: child for child in element.iter()}
            wikitext = fields["text"].text or ""
            if "redirect" not in fields and fields["ns"].text == "0" and not wikitext.lower().startswith("#redirect"):
                prose = strip_wikitext(wikitext)
                if len(prose) >= MIN_PAGE_CHARACTERS:
                    yield f"{fields['title'].text}\n\n{prose}"
            element.clear()


def strip_wikitext(wikitext: str) -> str:
    """Prose of a page: templates, tables, files, references, link targets and the closing lists taken away."""
    import mwparserfromhell

    tail = _SECTION_TAIL.search(wikitext)
    if tail is not None:
        wikitext = wikitext[: tail.start()]
    for pattern in (_TABLE, _FILE_LINK):
        for _ in range(5):
            wikitext, replaced = pattern.subn("", wikitext)
            if not replaced:
                break
    code = mwparserfromhell.parse(wikitext)
    for tag in code.filter_tags(matches=lambda node: str(node.tag) in {"ref", "gallery", "math", "table", "timeline"}):
        try:
            code.remove(tag)
        except ValueError:
            continue
    for template in code.filter_templates():
        with contextlib.suppress(ValueError):  # inside another that was replaced
            code.replace(template, _template_words(template))
    text = code.strip_code(normalize=True, collapse=True)
    text = _HEADING.sub(r"\2", text)
    for pattern in (_UNPARSED, _LEFTOVER_LINE, _INDENT, _EMPTY_BRACKETS):
        text = pattern.sub("", text)
    for pattern, replacement in _TIDYING:
        text = pattern.sub(replacement, text)
    return text.strip()


def _template_words(template: Template) -> str:
    """What a template shows in its sentence, where it is a word or a measure; otherwise nothing."""
    name = str(template.name).strip().lower()
    values = [str(value.value).strip() for value in template.params if not value.showkey]
    if name in _MEASURE:
        number_words = list(itertools.takewhile(_RANGE_WORD.fullmatch, values))
        return " ".join(values[: len(number_words) + 1])
    if name == "chem":
        return "".join(values)
    if name == "as of":
        return f"{str(template.name).strip()} {' '.join(values)}"
    place = _NAMED.get(name)
    return values[place] if place is not None and len(values) > max(place, 0) else ""


def read_ontology(content: bytes) -> Iterator[str]:
    """The terms of an OBO file as short texts: name, definition, other names, comment. Terms without definition or
    marked obsolete are left out."""
    for term in _terms(content):
        also = f"Also called: {'; '.join(dict.fromkeys(term.synonyms))}." if term.synonyms else ""
        yield "\n".join(part for part in (f"{term.name}.", term.definition, term.comment, also) if part)


def read_ontology_questions(content: bytes) -> Iterator[Pair]:
    """Of each term of an OBO file a question for its meaning, and its definition."""
    for term in _terms(content):
        yield f"What does the clinical term “{term.name}” mean?", term.definition


@dataclass(frozen=True)
class _Term:
    name: str
    definition: str
    comment: str
    synonyms: list[str]


def _terms(content: bytes) -> Iterator[_Term]:
    """Those with a definition that are not obsolete."""
    for block in content.decode("utf-8").split("\n[")[1:]:
        if not block.startswith("Term]") or "\nis_obsolete: true" in block:
            continue
        name, definition, comment = "", "", ""
        synonyms: list[str] = []
        for line in block.splitlines()[1:]:
            key, _, value = line.partition(": ")
            if key == "name":
                name = value
            elif key == "def":
                definition = _quoted(value)
            elif key == "comment":
                comment = _unescape(value)
            elif key == "synonym" and _quoted(value) != name:
                synonyms.append(_quoted(value))
        if definition:
            yield _Term(name, definition, comment, synonyms)


def _quoted(value: str) -> str:
    found = re.match(r'"((?:[^"\\]|\\.)*)"', value)
    return _unescape(found.group(1)).strip() if found else ""


def _unescape(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: " " if found.group(1) == "n" else found.group(1), value)


PAIR_READERS: dict[str, Callable[[bytes], Iterator[Pair]]] = {"ontology-questions": read_ontology_questions}
"""Of questions and answers."""
READERS: dict[str, Callable[[bytes], Iterator[str]]] = {
    "csv-in-zip": read_csv_in_zip,
    "wikipedia-dump": read_wikipedia_dump,
    "ontology": read_ontology,
}
