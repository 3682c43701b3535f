"""What `bench` measures on a GPU, without one: whose clock is read, how often it waits, whose kernels are named."""

from __future__ import annotations

import importlib.metadata
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lorabench.bench import limit
from lorabench.bench.profile import IDLE, PRODUCTS, _together, part_of_kernel
from lorabench.core.device import Device, peak_memory, peak_reserved_memory
from lorabench.fast.choice import kernels_for
from lorabench.records.provenance import describe_environment, gpu_clock
from lorabench.runs.draft import _at_work


def test_a_round_of_products_waits_once_and_reads_the_cards_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    clock = iter(range(100))

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = next(clock)
            events.append("mark")

        def synchronize(self) -> None:
            events.append("wait")

        def elapsed_time(self, end: Any) -> float:
            return float(end.at - self.at) * 1000.0 * limit.REPEATS

    monkeypatch.setattr(torch.cuda, "Event", Event)
    bench = limit._Bench(torch.bfloat16, torch.device("cuda"))
    for name in ("one", "other"):
        bench.add(lambda name=name: events.append(name))  # type: ignore[misc]
    assert bench._marked() == [1.0, 1.0]
    work = [*["one"] * limit.REPEATS, "mark", *["other"] * limit.REPEATS, "mark"]
    assert events == ["mark", *work, "wait"]


def test_the_limits_head_is_as_large_as_the_heads_own_chunks() -> None:
    hidden = torch.empty(16384, 1, dtype=torch.bfloat16, device="meta")
    assert len(kernels_for("cpu").room_for_logits(torch.empty(5000, 1), 256_000)) == 256
    assert len(kernels_for("meta").room_for_logits(hidden, 256_000)) == (1 << 30) // (2 * 256_000)


@pytest.mark.parametrize(
    ("kernel", "part"),
    [
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", PRODUCTS),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT", PRODUCTS),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128>>(Params)", "attention"),
        ("triton_red_fused_add_mean_mul_rsqrt_0", "compiled passes"),
        ("void at::native::multi_tensor_apply_kernel<Adam>(int)", "optimizer"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4, Add>(int)", "at::native::vectorized_elementwise_kernel"),
    ],
)
def test_kernels_are_named(kernel: str, part: str) -> None:
    assert part_of_kernel(kernel) == part


def test_what_no_kernel_took_is_waiting() -> None:
    parts = _together([("attention", 0.5, 2), ("attention", 0.25, 1), (PRODUCTS, 1.0, 3)], 2.0, IDLE)
    assert [(part.name, part.seconds, part.num_calls) for part in parts] == [
        (PRODUCTS, 1.0, 3), ("attention", 0.75, 3), (IDLE, 0.25, 0),
    ]  # fmt: skip


def test_the_driver_answers_or_is_null(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorabench.records.provenance import _driver_and_clock

    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _driver_and_clock("1") == (None, None)
    for printed, expected in (("570.86, 1980", ("570.86", "1980")), ("nothing", (None, None))):
        program.write_text(f'#!/bin/sh\n[ "$1" = "--id=GPU-1" ] && echo "{printed}"\n', encoding="utf-8")
        program.chmod(0o755)
        assert _driver_and_clock("1") == expected


def test_a_record_holds_what_the_card_ran_with(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = tmp_path / "clock"
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$1" = "--id=GPU-b" ] && read mhz < {clock} && echo "570.86, $mhz"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    uuids = {0: "a", 1: "b"}
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda where: SimpleNamespace(uuid=uuids[torch.device(where).index])
    )
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91300)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 << 30)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 7 << 30)
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.5.0" if name == "triton" else version(name))
    card = Device("cuda", "NVIDIA H100 80GB HBM3", 80 << 30, supports_bf16=True)
    clock.write_text("345\n")
    environment = describe_environment(card, ["lorabench", "run"])
    facts = {"driver": "570.86", "clock_mhz": 345, "cuda": "13.0", "cudnn": 91300, "triton": "3.5.0"}
    assert environment.gpu is not None
    assert environment.gpu.model_dump() == facts
    clock.write_text("1980\n")
    working = _at_work(environment, gpu_clock(1))
    assert working.gpu is not None
    assert working.gpu.model_dump() == facts | {"clock_mhz": 1980}
    assert _at_work(environment, None) == environment
    where = torch.device("cuda", 1)
    assert (peak_memory(where), peak_reserved_memory(where)) == (5 << 30, 7 << 30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert describe_environment(card, []).gpu is None, "the head of a cluster may have none"
