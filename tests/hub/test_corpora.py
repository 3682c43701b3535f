"""The nine corpora over HTTP, from repositories laid out as the real ones are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lorabench.corpora.catalog import get_dataset
from lorabench.corpora.entry import PREPARATION_VERSION
from tests.hub import corpora
from tests.hub.conftest import Worker
from tests.hub.server import Fault, HubRepository, LocalHub
from tests.marks import slow

NAMES = [
    "tinystories",
    "wikitext-103",
    "openwebtext",
    "arxiv-abstracts",
    "pubmedqa",
    "codeparrot",
    "ag-news",
    "pile-10k",
    "writingprompts",
]


def entry(name: str, **changes: Any) -> dict[str, Any]:
    """A catalogue entry as a mapping, with changes."""
    return get_dataset(name).model_dump(mode="json") | changes


def repository(hub: LocalHub, name: str) -> HubRepository:
    return hub.repositories["dataset", get_dataset(name).origin]


EXPECTED: dict[str, dict[str, Callable[[], list[str]]]] = {
    "tinystories": {
        "train": lambda: [text for part in range(4) for text in corpora.texts(f"stories{part}", 40)],
        "validation": lambda: corpora.texts("stories-v", 30),
    },
    "openwebtext": {"train": lambda: [text for part in range(12) for text in corpora.texts(f"web{part}", 60, 120)]},
    "arxiv-abstracts": {"train": lambda: [f"  {text}\n" for text in corpora.texts("arxiv", 180)]},
    "ag-news": {
        "train": lambda: corpora.texts("ag-train", 200, 40),
        "test": lambda: corpora.texts("ag-test", 60, 40),
    },
    "pile-10k": {"train": lambda: corpora.texts("pile", 150, 80)},
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_text_of_a_small_repository_arrives_unchanged(worker: Worker, hub: LocalHub, name: str) -> None:
    read = worker.ok("read_hub", entry=entry(name), max_bytes=None)
    assert {split: sorted(texts) for split, texts in read["texts"].items()} == {
        split: sorted(texts()) for split, texts in EXPECTED[name].items()
    }
    assert read["revision"] == repository(hub, name).commit("main")
    assert read["pinned"] is False
    assert read["parquet_branch"] is False


def test_nested_lists_and_several_fields_are_joined(worker: Worker) -> None:
    read = worker.ok("read_hub", entry=entry("pubmedqa"), max_bytes=None)
    body = corpora.texts("pqa_unlabeled", 120, 90)
    wanted = [
        "\n\n".join([text[:150], text[150:300], text[300:], f"In conclusion, {corpora.sentences(index, 20)}"])
        for index, text in enumerate(body)
    ]
    assert sorted(read["texts"]["train"]) == sorted(wanted)


def test_prompt_and_story_are_one_document_in_all_three_splits(worker: Worker) -> None:
    read = worker.ok("read_hub", entry=entry("writingprompts"), max_bytes=None)
    assert {split: len(texts) for split, texts in read["texts"].items()} == {"train": 140, "validation": 30, "test": 30}
    first = f"[ WP ] {corpora.sentences(0, 12)}\n\n{corpora.texts('prompts-t', 1, 90)[0]}"
    assert first in read["texts"]["test"]


def test_compressed_json_lines_of_code_keep_their_line_breaks(worker: Worker) -> None:
    read = worker.ok("read_hub", entry=entry("codeparrot"), max_bytes=None)
    assert len(read["texts"]["train"]) == 150
    for text in read["texts"]["train"]:
        compile(text, "from the hub", "exec")


def test_wikitext_rows_become_pages(worker: Worker) -> None:
    read = worker.ok("read_hub", entry=entry("wikitext-103"), max_bytes=None)
    assert {split: len(texts) for split, texts in read["texts"].items()} == {"train": 60, "validation": 12, "test": 12}
    for split, name in (("validation", "wiki-validation"), ("test", "wiki-test")):
        whole = "".join(row or "\n" for row in corpora.wikitext_rows(name, 12))
        pages = read["texts"][split]
        assert all(page.lstrip("\n").startswith(" = ") and "\n = = History = = \n" in page for page in pages)
        assert sum(len(page) for page in pages) == len(whole)
        assert all(page in whole for page in pages)
    assert sum("a = b = c" in page for page in read["texts"]["train"]) == 20


def test_csv_with_quotes_and_line_breaks(worker: Worker, hub: LocalHub) -> None:
    hub.add(corpora.csv_papers())
    changes = {
        "repository": "CShorten/ML-ArXiv-Papers",
        "text_fields": ["title", "abstract"],
        "splits": {"train": "train"},
    }
    read = worker.ok("read_hub", entry=entry("arxiv-abstracts", **changes), max_bytes=None)
    text = corpora.texts("papers", 80)[7]
    wanted = f'{text.split(".")[0]}\n\n  {text}, with a "quote"\nand a second line'
    assert wanted in read["texts"]["train"]
    assert len(read["texts"]["train"]) == 80


def test_a_loading_script_is_never_run_and_its_parquet_branch_is_read(worker: Worker, hub: LocalHub) -> None:
    old = hub.add(corpora.open_web_text_as_script("Skylion007/scripted"))
    read = worker.ok("read_hub", entry=entry("openwebtext", repository="Skylion007/scripted"), max_bytes=None)
    assert read["parquet_branch"] is True
    assert read["revision"] == old.commit("refs/convert/parquet")
    assert len(read["texts"]["train"]) == 150
    assert hub.bytes_sent("scripted.py") == 0


def test_a_repository_without_configurations_needs_none(worker: Worker, hub: LocalHub) -> None:
    files = {"plain_text/train-00000-of-00001.parquet": corpora.parquet({"text": corpora.texts("bare", 30)})}
    hub.add(HubRepository("dataset", "someone/bare", {"main": files}))
    read = worker.ok("read_hub", entry=entry("openwebtext", repository="someone/bare"), max_bytes=None)
    assert sorted(read["texts"]["train"]) == sorted(corpora.texts("bare", 30))


CARD = """
license: mit
dataset_info:
  features:
  - name: text
    dtype: string
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
"""


def test_files_with_other_columns_than_their_card_says_or_than_one_another(worker: Worker, hub: LocalHub) -> None:
    first, second = corpora.texts("first", 30), corpora.texts("second", 30)
    numbers = list(range(30))
    repositories = {
        "someone/more-than-the-card": {
            "README.md": corpora.card(CARD, "more"),
            "data/train-00000-of-00002.parquet": corpora.parquet({"text": first, "url": first}),
            "data/train-00001-of-00002.parquet": corpora.parquet({"text": second, "url": second}),
        },
        "someone/another-order": {
            "data/train-00000-of-00002.parquet": corpora.parquet({"text": first, "n": numbers}),
            "data/train-00001-of-00002.parquet": corpora.parquet({"n": numbers, "text": second}),
        },
        "someone/one-file-has-more": {
            "train/a.parquet": corpora.parquet({"text": first}),
            "train/b.parquet": corpora.parquet({"text": second, "n": numbers}),
        },
        "someone/rows-differ": {
            "train.jsonl.gz": corpora.json_lines(
                [{"text": text, "id": str(index) if index % 2 else index} for index, text in enumerate(first)]
                + [{"text": text, "meta": {"a": 1}} for text in second]
            ),
        },
    }
    for name, files in repositories.items():
        hub.add(HubRepository("dataset", name, {"main": files}))
        read = worker.ok("read_hub", entry=entry("pile-10k", repository=name), max_bytes=None)
        assert sorted(read["texts"]["train"]) == sorted(first + second), name


def test_a_server_that_is_no_hub_is_said_to_be_none(
    start_worker: Callable[..., Worker], hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start_worker()
    for header in ("X-Repo-Commit", "ETag"):
        monkeypatch.setattr(hub, "left_out", {header, f"X-Linked-{header}"})
        answer = worker("read_hub", entry=entry("ag-news"), max_bytes=10_000)
        assert answer["kind"] == "DownloadError"
        assert (
            f"does not answer like a hub for dataset fancyzhx/ag_news: its answers have no {header}" in answer["error"]
        )


def test_only_a_budgets_worth_is_read(worker: Worker, hub: LocalHub) -> None:
    big = corpora.open_web_text(num_files=40, rows_per_file=400)
    big.id = "Skylion007/big"
    hub.add(big)
    before = hub.bytes_sent("")
    read = worker.ok("read_hub", entry=entry("openwebtext", repository="Skylion007/big"), max_bytes=30_000)
    sent = hub.bytes_sent("") - before
    stored = sum(map(len, big.branches["main"].values()))
    num_bytes = sum(len(text.encode()) for text in read["texts"]["train"])
    assert 30_000 <= num_bytes < 32_000
    assert sent < stored / 10
    what, done, total = read["told"]
    assert "openwebtext" in what
    assert num_bytes < done
    assert total == 120_000
    assert "1 of 40 files" in read["sampling"]["train"]


def test_larger_budgets_read_several_files_side_by_side(worker: Worker, hub: LocalHub) -> None:
    big = corpora.open_web_text(num_files=16, rows_per_file=400)
    big.id = "Skylion007/wide"
    hub.add(big)
    read = worker.ok("read_hub", entry=entry("openwebtext", repository="Skylion007/wide"), max_bytes=300_000)
    assert "4 of 16 files" in read["sampling"]["train"]
    texts = set(read["texts"]["train"])
    from_file = [len(texts & set(corpora.texts(f"web{part}", 400, 120))) for part in range(16)]
    assert [part for part, count in enumerate(from_file) if count] == [0, 4, 8, 12]
    assert min(count for count in from_file if count) > 20


def test_the_same_documents_are_drawn_every_time(worker: Worker, start_worker: Callable[..., Worker]) -> None:
    other = start_worker(PYTHONHASHSEED="7")
    first = worker.ok("read_hub", entry=entry("arxiv-abstracts"), max_bytes=12_000)
    second = other.ok("read_hub", entry=entry("arxiv-abstracts"), max_bytes=12_000)
    assert first["texts"] == second["texts"]
    positions = [corpora.texts("arxiv", 180).index(text.strip()) for text in first["texts"]["train"]]
    assert positions != sorted(positions)
    assert max(positions) > 2 * len(positions), "only the first rows were taken"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text_fields": ["body"]}, "no field 'body'; they have text, meta.pile_set_name"),
        ({"text_fields": ["meta.pile"]}, "no field 'meta.pile'"),
        ({"splits": {"train": "training"}}, "no split 'training'; it has 'train'"),
        ({"revision": "v9"}, "has no revision v9"),
        ({"repository": "NeelNanda/pile-11k"}, "there is no dataset NeelNanda/pile-11k"),
    ],
)
def test_an_entry_that_does_not_fit_its_repository(worker: Worker, changes: dict[str, Any], said: str) -> None:
    answer = worker("read_hub", entry=entry("pile-10k", **changes), max_bytes=10_000)
    assert answer["kind"] == "DataError"
    assert said in answer["error"]
    assert "\n" not in answer["error"]


def test_damaged_files_are_one_sentence(worker: Worker, hub: LocalHub) -> None:
    packed = corpora.json_lines([{"text": text} for text in corpora.texts("damaged", 200)])
    good = {"train.jsonl.gz": packed}
    broken = {
        "someone/cut": {"train.jsonl.gz": packed[: len(packed) // 2]},
        "someone/garbage": {"train.parquet": b"PAR1 this is no Parquet file PAR1"},
        "someone/not-json": {"train.jsonl": b"{" * 100_000},
        "someone/empty": {"README.md": b"# nothing here\n"},
        "someone/binary": {"train.parquet": corpora.parquet({"text": [b"\x00\xff"] * 20})},
    }
    for name, files in {"someone/whole": good, **broken}.items():
        hub.add(HubRepository("dataset", name, {"main": files}))
    assert (
        len(
            worker.ok("read_hub", entry=entry("pile-10k", repository="someone/whole"), max_bytes=None)["texts"]["train"]
        )
        == 200
    )
    for name in broken:
        answer = worker("read_hub", entry=entry("pile-10k", repository=name), max_bytes=None)
        assert answer["kind"] == "DataError", answer
        assert name in answer["error"]
        assert "\n" not in answer["error"]
        assert len(answer["error"]) < 400
        assert answer["seconds"] < 20


def test_odd_texts_arrive(worker: Worker, hub: LocalHub) -> None:
    odd = ["a\0b" * 10, "x" * 3_000_000, "y", "\ufeffmark", *corpora.texts("odd", 20)]
    rows = [{"text": text} for text in odd] + [{"text": None}, {"text": ""}, {"text": "  \n"}]
    hub.add(HubRepository("dataset", "someone/odd", {"main": {"train.jsonl.gz": corpora.json_lines(rows)}}))
    read = worker.ok("read_hub", entry=entry("pile-10k", repository="someone/odd"), max_bytes=None)
    assert sorted(read["texts"]["train"]) == sorted(odd)


def test_a_field_that_is_not_text(worker: Worker) -> None:
    answer = worker("read_hub", entry=entry("ag-news", text_fields=["label"]), max_bytes=10_000)
    assert "field 'label' of fancyzhx/ag_news holds int, not text" in answer["error"]


def test_an_unknown_configuration_is_named_with_those_there_are(worker: Worker) -> None:
    answer = worker("read_hub", entry=entry("wikitext-103", config="wikitext-104"), max_bytes=10_000)
    assert "no configuration 'wikitext-104'" in answer["error"]
    assert "wikitext-103-raw-v1" in answer["error"]


def test_a_pinned_revision_is_what_is_read(worker: Worker, hub: LocalHub) -> None:
    commit = repository(hub, "pile-10k").commit("main")
    read = worker.ok("read_hub", entry=entry("pile-10k", revision=commit), max_bytes=10_000)
    assert read["revision"] == commit
    assert read["pinned"] is True


@pytest.mark.parametrize("name", NAMES)
def test_load_corpus_on_every_corpus(worker: Worker, hub: LocalHub, name: str) -> None:
    loaded = worker.ok("corpus", name=name, max_train_bytes=20_000)
    assert {split for split, texts in loaded["splits"].items() if texts} == {"train", "validation", "test"}
    assert loaded["revision"] == f"{repository(hub, name).commit('main')}-prepared-{PREPARATION_VERSION}"
    assert loaded["info"]["pinned"] is False
    asked = len(hub.requests)
    again = worker.ok("corpus", name=name, max_train_bytes=20_000)
    assert again["splits"] == loaded["splits"]
    assert not [request for request in hub.requests[asked:] if "resolve" in request.path], "it was fetched twice"


@pytest.mark.parametrize("name", [slow("arxiv-abstracts"), slow("ag-news")])
def test_a_corpus_that_is_cut_in_mid_file_is_read_whole(
    start_worker: Callable[..., Worker], hub: LocalHub, name: str
) -> None:
    """Compressed lines and Parquet: the connection breaks off twice."""
    worker = start_worker()
    whole = worker.ok("read_hub", entry=entry(name), max_bytes=None)
    hub.faults.append(Fault("/storage/", times=2, cut_after=2_000, methods=("GET",)))
    try:
        again = worker.ok("read_hub", entry=entry(name), max_bytes=None)
    finally:
        hub.faults.clear()
    assert again["texts"] == whole["texts"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arxiv-abstracts", "ag-news"])
def test_a_corpus_that_is_always_cut_is_given_up_on(
    start_worker: Callable[..., Worker], hub: LocalHub, name: str
) -> None:
    worker = start_worker()
    hub.faults.append(Fault("/storage/", times=10_000, cut_after=2_000, methods=("GET",)))
    try:
        answer = worker("corpus", name=name, max_train_bytes=10_000)
    finally:
        hub.faults.clear()
    assert answer["kind"] == "DownloadError", answer
    assert "while fetching dataset" in answer["error"]
    assert answer["seconds"] < 120
    assert worker.ok("corpus", name=name, max_train_bytes=10_000)["splits"]["train"]
