"""What `--devices` names, and what is said of what it cannot name."""

from __future__ import annotations

import re

import pytest

from lorabench.core import worker_devices
from lorabench.core.errors import InputError
from lorabench.core.worker_devices import parse_devices


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_devices, "num_usable_gpus", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture(autouse=True)
def eight_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")


def test_workers_on_the_processor_share_its_threads() -> None:
    devices = parse_devices("cpu:3")
    assert [device.name for device in devices] == ["cpu 1", "cpu 2", "cpu 3"]
    assert {(device.here, device.there, device.num_threads) for device in devices} == {("cpu", "cpu", 2)}
    assert {device.environment["OMP_NUM_THREADS"] for device in devices} == {"2"}
    assert parse_devices("cpu:1")[0].num_threads == 8
    assert parse_devices("cpu:256")[0].num_threads == 1


@pytest.mark.usefixtures("three_gpus")
def test_each_worker_sees_its_own_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = parse_devices("2, 0")
    assert [(device.name, device.here, device.there) for device in devices] == [
        ("cuda:2", "cuda:2", "cuda"),
        ("cuda:0", "cuda:0", "cuda"),
    ]
    assert [device.environment["CUDA_VISIBLE_DEVICES"] for device in devices] == ["2", "0"]
    assert [device.name for device in parse_devices("all")] == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8a1,7")
    assert [device.environment["CUDA_VISIBLE_DEVICES"] for device in parse_devices("all")] == ["5", "GPU-8a1", "7"]


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cpu:0", "0 workers are not accepted; give cpu:1 to cpu:256"),
        ("cpu:257", "257 workers are not accepted; give cpu:1 to cpu:256"),
        ("7", "there is no GPU 7; torch can use GPUs 0 to 2 here"),
        ("0,0", "GPU 0 is given twice; give each device once"),
        *(
            (text, "is not accepted; accepted: all")
            for text in ("", "cpu", "cpu:-1", "cpu:two", "0,", "cuda:0", "-1", "0;1")
        ),
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)) as error:
        parse_devices(text)
    assert str(error.value).startswith("--devices ")
    assert len(str(error.value).split()) <= 30


def test_all_without_a_gpu_says_what_there_is_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_devices, "num_usable_gpus", lambda: 0)
    with pytest.raises(InputError, match=r"it means every NVIDIA GPU, and torch can use none here; give cpu:2 for two"):
        parse_devices("all")
    with pytest.raises(InputError, match=r"there is no GPU 0; torch can use none here, and cpu:2 needs none"):
        parse_devices("0")
