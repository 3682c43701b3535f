from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorabench.core.errors import CancelledError, DivergedError, ModelError
from lorabench.core.storage import sha256_file
from lorabench.experiment.schema import TrainingSettings
from lorabench.experiment.steps import evaluation_steps, num_steps
from lorabench.methods.adapter import ParameterGroup
from lorabench.tokens.packing import Row, make_batch
from lorabench.training.checkpoints import Checkpoints, Position, remove_checkpoints
from lorabench.training.loop import Course, Hooks, tokens_per_second, train
from lorabench.training.optimization import learning_rate_at
from lorabench.training.ranks import Ranks
from tests.training.tiny import GroupedAdapter, TinyAdapter, TinyBase, tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")


SETTINGS = TrainingSettings(learning_rate=0.05, batch_size=4, context_length=16, epochs=3, precision="fp32")


class Run:
    """One call of the loop and what it told."""

    def __init__(
        self,
        folder: Path,
        dropout: float = 0.0,
        settings: TrainingSettings = SETTINGS,
        adapter: type[TinyAdapter] = TinyAdapter,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.adapter = adapter()
        self.base = TinyBase(self.adapter, dropout)
        self.losses: dict[int, float] = {}
        self.evaluated_at: list[int] = []
        self.problems: list[str] = []
        self.resumed_after: int | None = None

    def go(
        self,
        *,
        micro_batch_size: int = 4,
        stop_after: int | None = None,
        until_step: int | None = None,
        checkpoint_seconds: float = 1000.0,
        num_recorded_steps: int | None = None,
        break_at: Callable[[int], None] = lambda step: None,
        ranks: Ranks | None = None,
    ) -> Position:
        def on_step(values: dict[str, Any]) -> None:
            self.losses[values["step"]] = values["loss"]
            break_at(values["step"])

        def on_start(position: Position, problems: list[str]) -> None:
            self.resumed_after, self.problems = position.steps_done, problems

        return train(
            self.base,  # type: ignore[arg-type]
            self.adapter,  # type: ignore[arg-type]
            tiny_text(),
            Course.of(tiny_text(), self.settings, seed=3, micro_batch_size=micro_batch_size, num_evaluations=3),
            Checkpoints(
                self.folder,
                "this run",
                seconds=checkpoint_seconds,
                num_recorded_steps=10**9 if num_recorded_steps is None else num_recorded_steps,
            ),
            Hooks(
                on_step=on_step,
                evaluate=lambda: ({"scored": True}, 10),
                on_evaluation=lambda evaluation: self.evaluated_at.append(evaluation["step"]),
                on_start=on_start,
                on_checkpoint=lambda: None,
                should_stop=lambda: stop_after is not None and max(self.losses, default=0) >= stop_after,
            ),
            until_step,
            ranks,
        )

    def weights(self) -> bytes:
        return b"".join(parameter.detach().numpy().tobytes() for _, parameter in self.adapter.named_parameters())


def test_training_learns_and_tells_everything(tmp_path: Path) -> None:
    run = Run(tmp_path)
    position = run.go()
    steps = num_steps(tiny_text().num_rows(16), SETTINGS)
    assert list(run.losses) == list(range(1, steps + 1))
    assert run.losses[steps] < 0.8 * run.losses[1]
    assert run.evaluated_at == evaluation_steps(steps, 3)
    assert run.evaluated_at[-1] == steps
    assert position.train_tokens == SETTINGS.epochs * tiny_text().num_tokens
    assert tokens_per_second(position)[0] == sum(position.step_tokens[2:]) / sum(position.step_seconds[2:])


def test_speed_is_missing_with_a_reason_after_two_steps() -> None:
    speed, reason = tokens_per_second(Position(step_seconds=[1.0, 1.0], step_tokens=[5, 5]))
    assert speed is None
    assert "warm-up" in reason


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("stop_after", [1, 7, 11, 20])
def test_a_run_taken_up_again_is_the_run_that_was_never_stopped(
    tmp_path: Path, stop_after: int, dropout: float
) -> None:
    whole = Run(tmp_path / "whole", dropout)
    whole.go()
    first = Run(tmp_path / "parts", dropout)
    with pytest.raises(CancelledError, match=f"step {stop_after} of"):
        first.go(stop_after=stop_after)
    torch.manual_seed(99)
    second = Run(tmp_path / "parts", dropout)
    position = second.go()
    assert second.resumed_after == stop_after
    assert position.num_resumed == 1
    assert {**first.losses, **second.losses} == whole.losses
    assert second.weights() == whole.weights()


def test_groups_and_hooks_are_taken_up_again_too(tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole", adapter=GroupedAdapter)
    whole.go()
    with pytest.raises(CancelledError):
        Run(tmp_path / "parts", adapter=GroupedAdapter).go(stop_after=7)
    second = Run(tmp_path / "parts", adapter=GroupedAdapter)
    second.go()
    assert second.weights() == whole.weights()


class BegunAdapter(TinyAdapter):
    """It starts from the text, and counts its starts."""

    num_begun = 0

    def begin(self, rows: Iterator[Row]) -> None:
        self.num_begun += 1
        self.rows = list(rows)
        self.down.data.mul_(1.0 + self.rows[0][0].tokens.mean() / 50)


def test_a_start_from_the_text_is_made_once_from_the_first_epochs_rows(tmp_path: Path) -> None:
    whole, plain = Run(tmp_path / "whole", adapter=BegunAdapter), Run(tmp_path / "plain")
    whole.go()
    plain.go()
    assert whole.weights() != plain.weights()
    assert isinstance(whole.adapter, BegunAdapter)
    wanted = tiny_text().rows(16, 3, 0)
    assert [[each.tokens.tolist() for each in row] for row in whole.adapter.rows] == [
        [each.tokens.tolist() for each in row] for row in wanted
    ]
    first, second = (Run(tmp_path / "parts", adapter=BegunAdapter) for _ in range(2))
    with pytest.raises(CancelledError):
        first.go(stop_after=7)
    second.go()
    assert second.weights() == whole.weights()
    assert [run.adapter.num_begun for run in (first, second) if isinstance(run.adapter, BegunAdapter)] == [1, 0]


def test_groups_have_rates_and_decays_of_their_own(tmp_path: Path) -> None:
    """The first steps, against torch's AdamW with one optimizer for each group."""
    settings = SETTINGS.model_copy(update={"weight_decay": 0.1, "max_grad_norm": 1e6})
    run = Run(tmp_path, settings=settings, adapter=GroupedAdapter)
    with pytest.raises(CancelledError):
        run.go(stop_after=3)
    adapter = TinyAdapter()
    base, text = TinyBase(adapter), tiny_text()
    up = torch.optim.AdamW([adapter.up], weight_decay=0.2)
    down = torch.optim.AdamW([adapter.down], weight_decay=0.1)
    steps = num_steps(text.num_rows(16), settings)
    rows = text.rows(16, 3, 0)
    for step in range(3):
        batch = make_batch(rows[4 * step : 4 * step + 4])
        torch.autograd.backward(base.loss(batch) / batch.num_scored)
        up.param_groups[0]["lr"] = 3.0 * learning_rate_at(step, steps, settings)
        down.param_groups[0]["lr"] = learning_rate_at(step, steps, settings)
        for optimizer in (up, down):
            optimizer.step()
            optimizer.zero_grad()
        adapter.up.data *= 1.0 - 0.5 / (step + 2)
    for ours, plain in ((run.adapter.up, adapter.up), (run.adapter.down, adapter.down)):
        assert torch.allclose(ours, plain, rtol=1e-5, atol=1e-7)


def test_a_parameter_that_no_group_holds_is_refused(tmp_path: Path) -> None:
    class Forgetful(TinyAdapter):
        def optimizer_groups(self) -> list[ParameterGroup]:
            return [ParameterGroup([self.up])]

    with pytest.raises(ModelError, match="do not hold every trainable parameter once"):
        Run(tmp_path, adapter=Forgetful).go()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("pauses", [[1, 2, 3], [7, 7, 11], [10], [1000]])
def test_a_run_that_paused_is_the_run_that_never_did(tmp_path: Path, pauses: list[int], dropout: float) -> None:
    whole = Run(tmp_path / "whole", dropout)
    end = whole.go().steps_done
    losses: dict[int, float] = {}
    evaluated = []
    for pause in pauses:
        part = Run(tmp_path / "parts", dropout)
        assert part.go(until_step=pause).steps_done == min(pause, end)
        losses |= part.losses
        evaluated += part.evaluated_at
        torch.manual_seed(99)
    last = Run(tmp_path / "parts", dropout)
    assert last.go(until_step=1).steps_done == min(pauses[-1], end)  # it is beyond that, and stays where it is
    assert last.losses == {}
    last = Run(tmp_path / "parts", dropout)
    position = last.go()
    assert position.steps_done == end
    assert {**losses, **last.losses} == whole.losses
    assert evaluated + last.evaluated_at == whole.evaluated_at
    assert [evaluation["step"] for evaluation in position.evaluations] == whole.evaluated_at
    assert last.weights() == whole.weights()


@pytest.mark.parametrize("crash_at", [2, 9, 14])
def test_a_crash_loses_only_what_came_after_the_checkpoint(tmp_path: Path, crash_at: int) -> None:
    def crash(step: int) -> None:
        if step == crash_at:
            raise SystemError("the lights went out")

    whole = Run(tmp_path / "whole")
    whole.go()
    with pytest.raises(SystemError):
        Run(tmp_path / "parts").go(break_at=crash, checkpoint_seconds=0.0)
    second = Run(tmp_path / "parts")
    second.go()
    assert second.resumed_after == crash_at - 1
    assert second.weights() == whole.weights()


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole")
    whole.go()
    with pytest.raises(CancelledError):
        Run(tmp_path / "parts").go(stop_after=10, checkpoint_seconds=0.0)
    latest = max((tmp_path / "parts").glob("step-*"))
    damaged = latest / "state.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    second = Run(tmp_path / "parts")
    second.go()
    assert second.resumed_after == 9
    assert "state.safetensors does not match its hash" in second.problems[0]
    assert list((tmp_path / "parts").glob("step-00000010.damaged-*"))
    assert second.weights() == whole.weights()


def test_a_checkpoint_ahead_of_the_metrics_is_not_taken_up(tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole")
    whole.go()
    with pytest.raises(CancelledError):
        Run(tmp_path / "parts").go(stop_after=10, checkpoint_seconds=0.0)
    second = Run(tmp_path / "parts")
    second.go(num_recorded_steps=9)
    assert second.resumed_after == 9
    assert "metrics.jsonl is whole only up to step 9" in second.problems[0]
    assert second.weights() == whole.weights()


@pytest.mark.parametrize("lost", ["random.cpu", "optimizer.exp_avg.up", "optimizer.step.down", "adapter.up"])
def test_half_a_checkpoint_changes_nothing(tmp_path: Path, lost: str) -> None:
    """Its hashes are right, but something is not in it: the run starts anew from untouched weights."""
    with pytest.raises(CancelledError):
        Run(tmp_path / "parts").go(stop_after=3)
    (folder,) = (tmp_path / "parts").glob("step-*")
    tensors = load_file(folder / "state.safetensors")
    del tensors[lost]
    save_file(tensors, folder / "state.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["state.safetensors"] = sha256_file(folder / "state.safetensors")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    whole, second = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    whole.go()
    second.go()
    assert second.resumed_after == 0
    assert lost in second.problems[0]
    assert second.losses == whole.losses
    assert second.weights() == whole.weights()


def test_leftovers_of_a_killed_writer_are_cleared(tmp_path: Path) -> None:
    for name in (".writing-step-00000003", ".replaced-step-00000003"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.safetensors").write_bytes(b"half")
    run = Run(tmp_path)
    run.go()
    assert run.problems == []
    assert {path.name[:5] for path in tmp_path.iterdir()} == {"step-"}


def test_checkpoints_of_other_settings_are_not_taken_up(tmp_path: Path) -> None:
    with pytest.raises(CancelledError):
        Run(tmp_path).go(stop_after=5, checkpoint_seconds=0.0)
    for path in tmp_path.glob("step-*"):
        manifest = path / "manifest.json"
        manifest.write_text(manifest.read_text().replace("this run", "another run"))
    run = Run(tmp_path)
    run.go()
    assert min(run.losses) == 1
    assert len(run.problems) == 2


def test_two_checkpoints_are_kept_and_none_after_the_end(tmp_path: Path) -> None:
    Run(tmp_path).go(checkpoint_seconds=0.0)
    assert len(list(tmp_path.glob("step-*"))) == 2
    remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_accumulation_is_the_same_mathematics(tmp_path: Path, micro_batch_size: int, dropout: float) -> None:
    whole, parts = Run(tmp_path / "whole", dropout), Run(tmp_path / "parts", dropout)
    whole.go()
    parts.go(micro_batch_size=micro_batch_size)
    for step, loss in whole.losses.items():
        assert math.isclose(parts.losses[step], loss, rel_tol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_is_found_at_its_step(tmp_path: Path, value: float) -> None:
    run = Run(tmp_path)

    def poison(step: int) -> None:
        if step == 4:
            run.adapter.up.data.fill_(value)

    with pytest.raises(DivergedError, match="at step 5"):
        run.go(break_at=poison)


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.0), ("linear", 0.0), ("constant", 1.0), ("wsd", 0.0)])
def test_schedules_warm_up_and_end(schedule: Any, last: float) -> None:
    settings = TrainingSettings(learning_rate=2.0, schedule=schedule, warmup_ratio=0.1)
    rates = [learning_rate_at(step, 100, settings) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert max(rates) == 2.0
    assert rates[100] == pytest.approx(2.0 * last)
    assert all(rate > 0 for rate in rates[:100])


def test_warm_up_stable_decay() -> None:
    settings = TrainingSettings(learning_rate=2.0, schedule="wsd", warmup_ratio=0.1, decay_ratio=0.3)
    rates = [learning_rate_at(step, 100, settings) for step in range(101)]
    assert rates[10:71] == [2.0] * 61
    assert rates[70:] == pytest.approx([2.0 * (100 - step) / 30 for step in range(70, 101)])
