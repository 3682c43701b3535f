"""Small copies of the nine corpora's repositories: same file names, configurations, columns, formats."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hub.server import HubRepository

_NOUNS = """
river stone garden window letter winter market engine silver shadow morning paper bridge forest station captain
mountain lantern harbour village question answer summer kitchen doctor teacher machine signal pattern method result
measure pressure current surface energy protein patient treatment sample history science island journey weather
"""
WORDS = _NOUNS.split()


def sentences(seed: int, num_words: int) -> str:
    """Text of about `num_words` words that depends on the seed alone."""
    draw = random.Random(seed)
    words = [draw.choice(WORDS) + (str(draw.randrange(100)) if draw.random() < 0.1 else "") for _ in range(num_words)]
    for start in range(0, num_words, 9):
        words[start] = words[start].capitalize()
        words[min(start + 8, num_words - 1)] += "."
    return " ".join(words)


def texts(name: str, count: int, num_words: int = 60) -> list[str]:
    base = sum(map(ord, name)) * 10_000
    return [sentences(base + index, num_words + index % 17) for index in range(count)]


def parquet(columns: dict[str, Sequence[Any]], rows_per_group: int = 50) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=rows_per_group)
    return sink.getvalue()


def json_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)


def card(front_matter: str, title: str) -> bytes:
    return f"---\n{front_matter.strip()}\n---\n\n# {title}\n".encode()


def _repository(id: str, files: dict[str, bytes]) -> HubRepository:
    return HubRepository("dataset", id, {"main": {".gitattributes": b"*.parquet filter=lfs\n", **files}})


def tiny_stories() -> HubRepository:
    hashes = ["2d5a1467fff1081b", "5852b56a2bd28fd9", "a26307300439e943", "d243063613e5a057"]
    files = {
        f"data/train-{part:05d}-of-00004-{digest}.parquet": parquet({"text": texts(f"stories{part}", 40)})
        for part, digest in enumerate(hashes)
    }
    files["data/validation-00000-of-00001-869c898b519ad725.parquet"] = parquet({"text": texts("stories-v", 30)})
    files["TinyStories-train.txt"] = b"Once upon a time, in a file that must not be read.\n<|endoftext|>\n"
    files["TinyStories-valid.txt"] = b"Nor this one.\n<|endoftext|>\n"
    files["TinyStories_all_data.tar.gz"] = gzip.compress(b"nor this", mtime=0)
    files["README.md"] = card(
        "license: cdla-sharing-1.0\ntask_categories:\n- text-generation\nlanguage:\n- en", "TinyStories"
    )
    return _repository("roneneldan/TinyStories", files)


def wikitext_rows(name: str, num_pages: int) -> list[str]:
    """Rows as WikiText has them: a line each, headings between empty rows."""
    rows: list[str] = []
    for page, text in enumerate(texts(name, num_pages, 90)):
        title = f" = {text.split()[0]} {page} = \n"
        rows += ["", title, "", f" {text[:200]} \n", "", " = = History = = \n", "", f" {text[200:]} \n", ""]
        if page % 3 == 0:
            rows += [" = = = Details = = = \n", "", f" a = b = c and {text[:80]} = d \n", ""]
    return rows


def wikitext() -> HubRepository:
    train = wikitext_rows("wiki-train", 60)
    cut = len(train) // 2
    parts = {
        "train-00000-of-00002": train[:cut],
        "train-00001-of-00002": train[cut:],
        "validation-00000-of-00001": wikitext_rows("wiki-validation", 12),
        "test-00000-of-00001": wikitext_rows("wiki-test", 12),
    }
    configs = ["wikitext-103-raw-v1", "wikitext-103-v1", "wikitext-2-raw-v1", "wikitext-2-v1"]
    files = {f"wikitext-103-raw-v1/{name}.parquet": parquet({"text": rows}) for name, rows in parts.items()}
    for config in configs[1:]:
        for split in ("train", "validation", "test"):
            files[f"{config}/{split}-00000-of-00001.parquet"] = parquet({"text": ["", " = Another configuration = \n"]})
    lines = ["license:", "- cc-by-sa-3.0", "- gfdl", "dataset_info:"]
    for config in configs:
        lines += [f"- config_name: {config}", "  features:", "  - name: text", "    dtype: string"]
    lines.append("configs:")
    for config in configs:
        lines += [f"- config_name: {config}", "  data_files:"]
        for split in ("test", "train", "validation"):
            lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    return _repository("Salesforce/wikitext", files | {"README.md": card("\n".join(lines), "wikitext")})


def open_web_text(num_files: int = 12, rows_per_file: int = 60) -> HubRepository:
    files = {
        f"plain_text/train-{part:05d}-of-{num_files:05d}.parquet": parquet(
            {"text": texts(f"web{part}", rows_per_file, 120)}
        )
        for part in range(num_files)
    }
    front = """
license:
- cc0-1.0
dataset_info:
  config_name: plain_text
  features:
  - name: text
    dtype: string
configs:
- config_name: plain_text
  data_files:
  - split: train
    path: plain_text/train-*
"""
    return _repository("Skylion007/openwebtext", files | {"README.md": card(front, "openwebtext")})


def open_web_text_as_script(id: str = "Skylion007/openwebtext") -> HubRepository:
    """The same corpus as it long was: a loading script and archives, with the hub's partial Parquet conversion."""
    main = {
        "README.md": card("license:\n- cc0-1.0", "openwebtext"),
        f"{id.split('/')[1]}.py": b"raise SystemExit('a loading script was run')\n",
        "subsets/urlsf_subset00.tar": b"\0" * 512,
    }
    converted = {
        ".gitattributes": b"",
        **{
            f"plain_text/partial-train/{part:04d}.parquet": parquet({"text": texts(f"script{part}", 50, 120)})
            for part in range(3)
        },
    }
    return HubRepository("dataset", id, {"main": main, "refs/convert/parquet": converted})


def arxiv_abstracts() -> HubRepository:
    rows = [
        {
            "id": f"07{index // 90 + 4:02d}.{index:04d}",
            "submitter": "A. Author",
            "authors": "A. Author, B. Author",
            "title": text.split(".")[0],
            "comments": None if index % 2 else "12 pages",
            "journal-ref": None,
            "doi": None if index < 60 else f"10.1000/{index}",
            "abstract": f"  {text}\n",
            "report-no": None,
            "categories": ["hep-ph", "math.CO"][: 1 + index % 2],
            "versions": ["v1", "v2"][: 1 + index % 2],
        }
        for index, text in enumerate(texts("arxiv", 180))
    ]
    front = "language:\n- en\nlicense:\n- cc0-1.0\npretty_name: arxiv-abstracts-2021"
    files = {"arxiv-abstracts.jsonl.gz": json_lines(rows), "README.md": card(front, "arxiv-abstracts-2021")}
    return _repository("gfissore/arxiv-abstracts-2021", files)


def pubmed_qa() -> HubRepository:
    def table(name: str, count: int, decided: bool) -> bytes:
        body = texts(name, count, 90)
        columns: dict[str, Sequence[Any]] = {
            "pubid": list(range(count)),
            "question": [f"Is {text.split()[0].lower()} effective?" for text in body],
            "context": [
                {
                    "contexts": [text[:150], text[150:300], text[300:]],
                    "labels": ["BACKGROUND", "METHODS", "RESULTS"],
                    "meshes": ["Humans", "Adult"],
                }
                for text in body
            ],
            "long_answer": [f"In conclusion, {sentences(index, 20)}" for index in range(count)],
        }
        if decided:
            columns["final_decision"] = ["yes"] * count
        return parquet(columns)

    lines = ["license:", "- mit", "dataset_info:"]
    for config in ("pqa_artificial", "pqa_labeled", "pqa_unlabeled"):
        lines += [f"- config_name: {config}", "  features:", "  - name: pubid", "    dtype: int32"]
        lines += ["  - name: question", "    dtype: string", "  - name: context", "    sequence:"]
        for name in ("contexts", "labels", "meshes"):
            lines += [f"    - name: {name}", "      dtype: string"]
        lines += ["  - name: long_answer", "    dtype: string"]
        if config != "pqa_unlabeled":
            lines += ["  - name: final_decision", "    dtype: string"]
        lines += ["  splits:", "  - name: train", "    num_bytes: 1000", "    num_examples: 100"]
        lines += ["  download_size: 1000", "  dataset_size: 1000"]
    lines.append("configs:")
    for config in ("pqa_artificial", "pqa_labeled", "pqa_unlabeled"):
        lines += [f"- config_name: {config}", "  data_files:", "  - split: train", f"    path: {config}/train-*"]
    files = {
        f"{config}/train-00000-of-00001.parquet": table(config, 120 if config == "pqa_unlabeled" else 20, decided)
        for config, decided in (("pqa_artificial", True), ("pqa_labeled", True), ("pqa_unlabeled", False))
    }
    return _repository("qiaojin/PubMedQA", files | {"README.md": card("\n".join(lines), "PubMedQA")})


def codeparrot() -> HubRepository:
    rows = []
    for index, text in enumerate(texts("code", 150, 70)):
        body = "\n".join(
            f"    {word.strip('.').lower()}_{line} = {line}" for line, word in enumerate(text.split()[:30])
        )
        content = f"import os\n\n\ndef function_{index}():\n{body}\n    return os.getpid() + {index}\n"
        rows.append(
            {
                "repo_name": f"owner/project{index}",
                "path": f"src/module_{index}.py",
                "copies": "1",
                "size": str(len(content)),
                "content": content,
                "license": ["mit", "apache-2.0", "gpl-3.0"][index % 3],
                "hash": 10**18 + index,
                "line_mean": 20.5,
                "line_max": 60,
                "alpha_frac": 0.6,
                "autogenerated": False,
            }
        )
    files = {"file-000000000054.json.gz": json_lines(rows), "README.md": b"# CodeParrot Dataset Cleaned (valid)\n"}
    return _repository("codeparrot/codeparrot-clean-valid", files)


def ag_news() -> HubRepository:
    front = """
license:
- unknown
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': World
          '1': Sports
          '2': Business
          '3': Sci/Tech
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
"""
    files = {
        f"data/{split}-00000-of-00001.parquet": parquet(
            {"text": texts(f"ag-{split}", count, 40), "label": [index % 4 for index in range(count)]}
        )
        for split, count in (("train", 200), ("test", 60))
    }
    return _repository("fancyzhx/ag_news", files | {"README.md": card(front, "ag_news")})


def pile_10k() -> HubRepository:
    body = texts("pile", 150, 80)
    metas = [{"pile_set_name": name} for name in ("Pile-CC", "PubMed Abstracts", "Github") * 50]
    table = parquet({"text": body, "meta": metas})
    infos = {
        "NeelNanda--pile-10k": {
            "description": "",
            "citation": "",
            "homepage": "",
            "license": "",
            "features": {
                "text": {"dtype": "string", "id": None, "_type": "Value"},
                "meta": {"pile_set_name": {"dtype": "string", "id": None, "_type": "Value"}},
            },
        }
    }
    files = {
        "data/train-00000-of-00001-4746b8785c874cc7.parquet": table,
        "dataset_infos.json": json.dumps(infos).encode(),
        "README.md": card("license: bigscience-bloom-rail-1.0", "pile-10k"),
    }
    return _repository("NeelNanda/pile-10k", files)


def writing_prompts() -> HubRepository:
    def table(name: str, count: int) -> bytes:
        return parquet(
            {"prompt": [f"[ WP ] {sentences(index, 12)}" for index in range(count)], "story": texts(name, count, 90)}
        )

    front = """
license: mit
language:
- en
dataset_info:
  features:
  - name: prompt
    dtype: string
  - name: story
    dtype: string
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
  - split: validation
    path: data/validation-*
"""
    files = {
        "data/train-00000-of-00002-105e07cb0d199464.parquet": table("prompts0", 70),
        "data/train-00001-of-00002-4fdb982c11056472.parquet": table("prompts1", 70),
        "data/validation-00000-of-00001-137b93e1e979d138.parquet": table("prompts-v", 30),
        "data/test-00000-of-00001-16503b0c26ed00c6.parquet": table("prompts-t", 30),
        "README.md": card(front, "writingprompts"),
    }
    return _repository("euclaise/writingprompts", files)


def csv_papers() -> HubRepository:
    """`CShorten/ML-ArXiv-Papers`: one CSV with an index column, titles and abstracts."""
    lines = ["Unnamed: 0.1,Unnamed: 0,title,abstract"]
    for index, text in enumerate(texts("papers", 80)):
        lines.append(f'{index},{float(index)},"{text.split(".")[0]}","  {text}, with a ""quote""\nand a second line"')
    front = "license: afl-3.0"
    files = {"ML-Arxiv-Papers.csv": "\n".join(lines).encode(), "README.md": card(front, "ML-ArXiv-Papers")}
    return _repository("CShorten/ML-ArXiv-Papers", files)


def all_corpora() -> list[HubRepository]:
    return [
        tiny_stories(),
        wikitext(),
        open_web_text(),
        arxiv_abstracts(),
        pubmed_qa(),
        codeparrot(),
        ag_news(),
        pile_10k(),
        writing_prompts(),
    ]
