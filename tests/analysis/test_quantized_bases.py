"""What quantising costs the base: paired by document with the same base as it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lorabench.analysis.candidates import CorpusGroup, gather
from lorabench.analysis.quantized_bases import quantized_bases
from lorabench.analysis.validation import DocumentReader, read_validation_runs
from lorabench.report.sections.quantized_bases import claim
from tests.report.synthetic import SyntheticResults


@pytest.fixture
def group(tmp_path: Path) -> CorpusGroup:
    """Two ranks, each on the base as it is and on one in four bits, whose base scores are 2 % higher."""
    results = SyntheticResults(tmp_path)
    records = results.grid(ranks=[8, 16])
    records += [results.add(record.spec.model_copy(update={"quantization": "nf4"})) for record in records]
    (found,), problems = gather(read_validation_runs(records, DocumentReader(results.store)))
    assert not problems
    candidates = []
    for item in found.candidates:
        assert item.base_nll is not None
        worse = 1.02 if item.shown.settings["quantization"] == "nf4" else 1.0
        candidates.append(dataclasses.replace(item, base_nll=item.base_nll * worse))
    return dataclasses.replace(found, candidates=tuple(candidates))


def test_each_base_is_compared_once_with_itself(group: CorpusGroup) -> None:
    (found,) = quantized_bases([group])
    whole = next(item for item in group.candidates if item.shown.settings["quantization"] == "none")
    assert whole.base_nll is not None
    assert whole.num_bytes is not None
    bits = float(whole.base_nll[0].sum() / np.log(2.0) / whole.num_bytes.sum())
    assert found.bits_per_byte == pytest.approx(1.02 * bits)
    assert found.difference.estimate == pytest.approx(0.02 * bits)
    assert found.difference.excludes_zero
    assert claim((found,)).startswith("1 of 1 quantised bases are worse than the base as it is, at most by 0.0")


def test_without_the_base_as_it_is_nothing_is_compared(group: CorpusGroup) -> None:
    held = [item for item in group.candidates if item.shown.settings["quantization"] == "nf4"]
    assert quantized_bases([dataclasses.replace(group, candidates=tuple(held))]) == ()
