"""Runs lorabench's hub loaders in a process of their own, which reads HF_ENDPOINT and HF_HOME when it starts.

One request per line on standard input, one answer per line on standard output: {"ok": …} or {"error": …}.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorabench.core.errors import LorabenchError


def read_hub(entry: dict[str, Any], max_bytes: int | None) -> dict[str, Any]:
    """`load_hub_documents` on an entry given in full."""
    from lorabench.corpora.hub_stream import load_hub_documents
    from lorabench.corpora.sources.hub import HubCorpus

    told: list[tuple[str, int, int | None]] = []
    documents = load_hub_documents(
        HubCorpus.model_validate(entry), max_bytes=max_bytes, progress=lambda *news: told.append(news)
    )
    return {
        "texts": documents.texts,
        "revision": documents.revision,
        "pinned": documents.pinned,
        "parquet_branch": documents.parquet_branch,
        "sampling": documents.sampling,
        "told": told[-1] if told else None,
    }


def fetch(entry: dict[str, Any]) -> dict[str, Any]:
    """Locate the model of an entry given in full."""
    from lorabench.models.sources.hub import HubModel

    told: list[tuple[str, int, int | None]] = []
    location = HubModel.model_validate(entry).locate(progress=lambda *news: told.append(news))
    folder, revision = location.folder, location.revision
    files = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))
    return {"folder": str(folder), "revision": revision, "files": files, "told": told}


def corpus(name: str | dict[str, Any], max_train_bytes: int | None) -> dict[str, Any]:
    """`load_corpus` on a name of the catalogue, a hub id, or a mapping of its parts."""
    from lorabench.corpora.references import build_reference
    from lorabench.corpora.store import load_corpus

    reference = build_reference(name, "datasets") if isinstance(name, dict) else name
    loaded = load_corpus(reference, max_train_bytes=max_train_bytes)
    return {
        "info": loaded.info.model_dump(mode="json"),
        "revision": loaded.revision,
        "splits": {split: [document.text for document in documents] for split, documents in loaded.splits.items()},
        "answers": {split: [document.answers for document in documents] for split, documents in loaded.splits.items()},
    }


def model(name: str) -> dict[str, Any]:
    """`locate_model` on a name of the catalogue, and what a user would do with its folder."""
    from lorabench.models.locate import locate_model
    from lorabench.models.shape import read_model_shape

    location = locate_model(name)
    shape = read_model_shape(location.folder)
    return {
        "folder": str(location.folder),
        "revision": location.revision,
        "num_parameters": shape.num_parameters,
        "linears": {path: list(size) for path, size in shape.linears.items()},
        "files": sorted(path.name for path in location.folder.iterdir()),
    }


def use(folder: str, text: str) -> dict[str, Any]:
    """Load a folder with Transformers alone, tokenise and score a text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = loaded(input_ids=ids, labels=ids).loss
    return {
        "class": type(loaded).__name__,
        "ids": ids[0].tolist(),
        "round_trip": tokenizer.decode(plain),
        "loss": float(loss),
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
    }


def plan(experiment: dict[str, Any]) -> dict[str, Any]:
    """`make_plan`, from what was read of the hub now."""
    from lorabench.experiment.plan import make_plan
    from lorabench.experiment.schema import build_experiment
    from lorabench.models.hub_metadata import read_metadata

    read_metadata.cache_clear()
    planned = make_plan(build_experiment(experiment))
    models = {group.model.name: group.model for group in planned.groups}
    return {
        name: {
            "revision": found.revision,
            "pinned": found.pinned,
            "missing_bytes": found.missing_bytes,
            "folder": found.folder and str(found.folder),
            "shape": asdict(found.shape) | {"experts": sorted(found.shape.experts)},
            "family": found.source.family,
            "licence": found.source.licence,
            "targets": next(group.runs[0].target_modules for group in planned.groups if group.model.name == name),
        }
        for name, found in models.items()
    } | {"run_ids": [run.run_id for run in planned.runs], "warnings": list(planned.warnings)}


def plan_file(path: str) -> list[str]:
    """`lorabench.plan` of an experiment file; what its models are called."""
    import lorabench

    return [part.name for part in lorabench.plan(path).model_parts]


def load(name: str) -> dict[str, Any]:
    """`load_base` on what a reference means."""
    from lorabench.models.base import load_base
    from lorabench.models.loaded import LoadedLinears
    from lorabench.models.locate import locate_model

    base = load_base(locate_model(name).folder, precision="fp32", device="cpu")
    linears = LoadedLinears(base.model)
    return {
        "class": type(base.model).__name__,
        "num_parameters": linears.num_parameters,
        "linears": linears.linears,
        "embedding_sum": float(base.model.get_input_embeddings().weight.sum()),
    }


def run(experiment: dict[str, Any], output_dir: str) -> dict[str, Any]:
    """`lorabench run`; the record of its only run."""
    import yaml

    import lorabench

    path = Path(output_dir).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(experiment), encoding="utf-8")
    lorabench.run(path, output_dir, trackers=["none"])
    (record,) = Path(output_dir).rglob("record.json")
    values: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return values


def cli(arguments: list[str], folder: str) -> dict[str, Any]:
    """`lorabench` with these arguments in a folder: its exit code and what it printed."""
    from lorabench.cli.main import app

    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = app(arguments, standalone_mode=False)
    return {"code": code, "printed": printed.getvalue()}


CALLS = {
    "read_hub": read_hub,
    "fetch": fetch,
    "corpus": corpus,
    "model": model,
    "use": use,
    "plan": plan,
    "plan_file": plan_file,
    "load": load,
    "run": run,
    "cli": cli,
}


def main() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        for name, value in request.get("environment", {}).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        start = time.monotonic()
        answer: dict[str, Any]
        try:
            answer = {"ok": CALLS[request["call"]](**request["arguments"])}
        except LorabenchError as error:
            answer = {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}
        except Exception:
            answer = {"crash": traceback.format_exc()}
        answer["seconds"] = time.monotonic() - start
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
