"""Which form to ship, on losses that are known: what cannot be told from nothing is not told."""

from __future__ import annotations

import numpy as np
import pytest

from lorabench.analysis.deployment import Choice, choose_form
from lorabench.records.deployment import Constraints, DeploymentRecord, Round
from lorabench.records.documents import DocumentResults
from lorabench.records.schema import Environment, Status

NUM_DOCUMENTS = 60
ENVIRONMENT = Environment(
    hostname_sha256="0" * 16,
    device="cpu",
    device_name="test",
    num_devices=1,
    processor="test",
    num_cores=2,
    memory_bytes=1,
    operating_system="test",
    python_version="3.11",
    packages={},
    lorabench_version="0",
    code_sha256="0",
    git_commit=None,
    git_dirty=None,
    command="",
)


def documents(loss: float, noise: float, seed: int, gain: float = 0.1) -> DocumentResults:
    """The adapter's nats with `loss` bits per byte more, spread over documents by `noise`."""
    generator = np.random.default_rng(0)
    num_bytes = generator.integers(200, 2000, NUM_DOCUMENTS).astype(float)
    adapted = num_bytes * np.log(2.0) * generator.normal(1.2, 0.2, NUM_DOCUMENTS)
    own = np.random.default_rng(seed)
    shift = np.log(2.0) * num_bytes * (loss + own.normal(0.0, noise, NUM_DOCUMENTS))
    return DocumentResults(
        fingerprint="same",
        num_bytes=num_bytes,
        num_tokens=num_bytes / 4,
        num_words=num_bytes / 6,
        nll=adapted + shift,
        base_nll=adapted + np.log(2.0) * num_bytes * (gain + generator.normal(0.0, 0.02, NUM_DOCUMENTS)),
    )


def form(name: str, megabytes: float, rate: float, memory: float = 1e9) -> DeploymentRecord:
    timed = Round(
        load_seconds=1.0,
        resident_bytes=int(memory),
        peak_bytes=int(memory),
        ttft_seconds_128=0.1,
        ttft_seconds_512=None,
        prefill_tokens_per_second=100.0,
        decode_tokens_per_second=rate,
        decode_tokens_per_second_8=None,
    )
    return DeploymentRecord(
        run_id="run",
        form=name,
        engine="test",
        status=Status.COMPLETED,
        disk_bytes=int(megabytes * 1e6),
        rounds=(timed,),
        environment=ENVIRONMENT,
        measured_at="now",
    )


def choose(constraints: Constraints | None = None, gain: float = 0.1) -> Choice:
    """An exact form, one with noise but no loss, one that loses a tenth of the gain, one that loses it all."""
    measured = [
        (form("exact", 500, 30), documents(0.0, 0.0, 1)),
        (form("noisy", 150, 90), documents(0.0, 0.004, 2)),
        (form("lossy", 100, 120, 4e8), documents(0.01, 0.004, 3)),
        (form("ruined", 60, 150, 3e8), documents(0.11, 0.01, 4)),
    ]
    return choose_form(measured, documents(0.0, 0.0, 0, gain), constraints)


def test_the_smallest_that_loses_nothing() -> None:
    choice = choose()
    assert choice.pick == "noisy"
    assert "Ship noisy: it loses nothing that can be told from chance" in choice.verdict
    by_form = {standing.record.form: standing for standing in choice.standings}
    assert [by_form[name].loses for name in ("exact", "noisy", "lossy", "ruined")] == [False, False, True, True]
    assert not by_form["ruined"].keeps_gain
    kept = by_form["lossy"].gain_kept
    assert kept is not None
    assert kept.low is not None
    assert kept.high is not None
    assert kept.low < 0.9 < kept.high
    assert [reason.split()[4] for reason in choice.reasons] == ["lossy", "ruined"]


def test_what_the_user_asks_for_decides() -> None:
    assert choose(Constraints(max_memory_bytes=5e8)).pick == "lossy"
    assert choose(Constraints(min_decode=100.0)).pick == "lossy"
    verdict = choose(Constraints(max_disk_bytes=2e8)).verdict
    assert verdict.startswith("Ship noisy: ")
    assert verdict.endswith(", asked for at most 200 MB of disk")
    nothing = choose(Constraints(max_memory_bytes=3.5e8))
    assert nothing.pick is None
    assert "meets what was asked for" in nothing.verdict
    assert "noisy is left out: it needs 1.00 GB of memory" in nothing.reasons


def test_the_fastest_is_named_where_every_form_that_fits_loses_something() -> None:
    measured = [
        (form("least", 105, 30), documents(0.01, 0.004, 3)),
        (form("quick", 110, 75), documents(0.02, 0.004, 4)),
    ]
    choice = choose_form(measured, documents(0.0, 0.0, 0))
    assert choice.pick == "least"
    assert choice.verdict == (
        "Ship least: it loses least of those that fit, at 105 MB; quick writes fastest (75.0 tokens/s)"
    )


@pytest.mark.parametrize("gain", [0.0, -0.1])
def test_without_a_gain_none_can_be_kept(gain: float) -> None:
    choice = choose(gain=gain)
    assert choice.pick is None
    assert choice.verdict == "No form keeps a gain"


def test_shares_hold_their_intervals() -> None:
    """The true share is in 95 of 100 intervals, whatever the noise."""
    inside = 0
    for seed in range(200):
        found = documents(0.03, 0.02, 1000 + seed)
        (standing,) = choose_form([(form("one", 1, 1), found)], documents(0.0, 0.0, 0)).standings
        kept = standing.gain_kept
        assert kept is not None
        assert kept.low is not None
        assert kept.high is not None
        inside += kept.low <= 0.7 <= kept.high
    assert inside >= 180
