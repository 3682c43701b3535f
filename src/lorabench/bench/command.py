"""What `lorabench bench` does: measure point after point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lorabench.bench.measure import Result, bench
from lorabench.bench.profile import Part, profile_step
from lorabench.bench.request import Request
from lorabench.bench.subject import load_subject
from lorabench.core.machine import prepare_process
from lorabench.core.progress import View
from lorabench.experiment.calibration import calibrate
from lorabench.models.base import PRECISIONS


@dataclass(frozen=True)
class Answer:
    """What was measured, and where the time of the first point's step went if that was asked for."""

    results: list[Result]
    parts: list[Part]

    def to_json(self) -> dict[str, Any]:
        """The first point's values at the top; all points under `rows` where there are several."""
        values = self.results[0].to_json()
        if len(self.results) > 1:
            values["rows"] = [result.to_json() for result in self.results]
        if self.parts:
            values["profile_seconds"] = {part.name: part.seconds for part in self.parts}
        return values


def answer(request: Request, view: View) -> Answer:
    """Measure every point of the request. Raises InputError before anything is loaded."""
    precisions, points = request.precisions, request.points
    if request.device.note:
        view.message(request.device.note)
    prepare_process()
    calibrate(request.device)
    results: list[Result] = []
    parts: list[Part] = []
    for precision in precisions:
        view.phase(f"loading {request.model}")
        subject = load_subject(
            request.model,
            precision=PRECISIONS[precision],
            random_weights=request.random_weights,
            device=request.device,
            progress=view.progress,
        )
        if precision == "bf16" and request.device.type == "cpu" and not request.device.supports_bf16:
            view.message("bf16: this processor has no bfloat16 units, so its products are emulated and slow")
        for point in points:
            what = f"{precision}, context {point.context_length}, batch {point.batch_size}"
            view.progress(f"measuring {what}", len(results), len(precisions) * len(points))
            results.append(bench(subject, point))
        if request.profile and not parts:
            view.phase("profiling a step")
            parts = profile_step(subject, points[0])
        subject.base.free()
    return Answer(results, parts)
