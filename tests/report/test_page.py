"""The page without a browser: what it admits, what it escapes, what it costs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabench.records.schema import Status
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report
from lorabench.report.page import PAGE_NAME
from lorabench.report.page_data import script_json
from lorabench.report.page_figures import plot_text
from tests.report.synthetic import SyntheticResults

TEXTS = st.text(st.characters(codec=None, categories=None), max_size=60)


def build(results: SyntheticResults) -> str:
    build_report(RecordStore(results.output_dir), figures=False)
    return (results.output_dir / "results" / PAGE_NAME).read_text(encoding="utf-8")


def payload(page: str, identity: str) -> object:
    found = re.search(rf'<script type="application/json" id="{identity}">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def test_only_its_own_scripts_may_run(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    results.grid()
    page = build(results)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    directives = dict(part.strip().split(" ", 1) for part in policy[1].split(";"))
    assert directives["default-src"] == "'none'"
    allowed = set(directives["script-src"].split())
    own = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    packed = re.search(r'id="plotly-packed">([^<]+)<', page)
    assert own
    assert packed
    plotly = gzip.decompress(base64.b64decode(packed[1])).decode("utf-8")
    assert "Plotly, Inc." in plotly[:300]
    assert allowed == {f"'sha256-{sha256(own[1])}'", f"'sha256-{sha256(plotly)}'"}


def test_nothing_in_it_points_outside(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    results.grid()
    page = build(results)
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    addresses = re.findall(r"""\b(?:src|href|action|srcset|poster)\s*=\s*["']?([^"'\s>]*)""", markup)
    assert len(addresses) > 5
    assert all(address.startswith(("#", "data:,")) for address in addresses)
    assert "@import" not in page
    assert "url(" not in page.split("</style>")[0]


@given(
    st.recursive(
        TEXTS | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
        max_leaves=20,
    )
)
def test_embedded_json_is_exact_and_closes_nothing(value: object) -> None:
    text = script_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)
    text.encode("ascii")


@given(TEXTS)
def test_plotly_is_given_no_markup(text: str) -> None:
    shown = plot_text(text)
    assert not set("<>") & set(shown)
    assert shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == text


def test_every_run_is_in_the_table_with_the_figures_of_the_csv(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    records = results.grid(["a", "b"], ["news"], [8, 16])
    records += results.grid(["a"], ["news"], [32], status=Status.OUT_OF_MEMORY, status_reason="too large")
    runs = payload(build(results), "runs-data")
    assert isinstance(runs, dict)
    columns = {column["key"]: column for column in runs["columns"]}
    ids = [runs["texts"][number] for number in columns["run_id"]["values"]]
    assert sorted(ids) == sorted(record.run_id for record in records)
    for record in records:
        place = ids.index(record.run_id)
        figure = columns["val_bits_per_byte"]["values"][place]
        if record.validation is None:
            assert figure is None
            assert runs["texts"][runs["reasons"][place]] == "too large"
        else:
            assert figure == pytest.approx(record.validation.bits_per_byte, rel=1e-5)
    assert columns["status"]["shown"], "what differs between runs is shown at first"
    assert not columns["batch_size"]["shown"]
    assert columns["val_bits_per_byte"]["about"] == "bits/byte; lower is better"
    assert {"schedule", "warmup_ratio", "weight_decay", "max_grad_norm", "micro_batch_size", "stride"} <= set(columns)


def test_runs_are_called_by_all_that_sets_them_apart(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    for adapter in ({}, {"method": "dora"}, {"target_modules": "attention"}, {"alpha": 4}):
        results.grid(["a", "b"], ["news", "stories"], [8], [1e-3, 1e-2], [0, 1], adapter=adapter)
    runs = payload(build(results), "runs-data")
    assert isinstance(runs, dict)
    names = [runs["texts"][number] for number in runs["names"]]
    assert len(set(names)) == len(names) == 64


def test_curves_are_thinned_to_their_ends(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, steps=5000)
    (record,) = results.grid(ranks=[8])
    curves = payload(build(results), "curves-data")
    assert isinstance(curves, list)
    steps = curves[0]["step"]
    assert len(steps) <= 200
    assert steps[0] == 1
    assert steps == sorted(steps)
    assert steps[-1] >= 4970
    assert [step for step, _ in curves[0]["evaluated"]] == [item.step for item in record.evaluations]
    whole = {line["step"]: line for line in RecordStore(tmp_path).metrics(record) if line["kind"] == "step"}
    scores = record.validation
    assert scores is not None
    bits_per_nat = scores.bits_per_byte / scores.loss
    assert all(
        whole[s]["smoothed_loss"] * bits_per_nat == pytest.approx(v, rel=1e-5)
        for s, v in zip(steps, curves[0]["training"], strict=True)
    ), "in the unit of validation"


def test_text_that_is_no_text_does_not_stop_it(tmp_path: Path) -> None:
    """Lone surrogates, control and direction characters come out of broken files and tokenizers."""
    results = SyntheticResults(tmp_path)
    results.grid(ranks=[8], notes=("\x00\x1b[31m \ud800 \u202e reversed", "second"))
    assert "second" in build(results)


def test_an_earlier_page_stays_when_a_new_one_cannot_be_written(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    results.grid(ranks=[8])
    first = build(results)
    assert not list((tmp_path / "results").glob(".writing-*"))
    results.grid(ranks=[16])
    second = build(results)
    assert first != second


@pytest.mark.alone
@pytest.mark.slow
def test_five_hundred_runs_take_under_five_seconds(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, steps=300, also_on=("news",))
    records = results.grid(
        ["a", "b", "c", "d"], ["news", "medical", "python-code", "stories"], [4, 8, 16, 32], [3e-4, 1e-3], range(4)
    )
    assert len(records) == 512
    build_report(RecordStore(tmp_path), figures=False)  # plotly is packed once in a process
    started = time.process_time()
    build_report(RecordStore(tmp_path), figures=False)
    assert time.process_time() - started < 5.0
