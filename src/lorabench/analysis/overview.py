"""What lies in the folder, before anything is compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from lorabench.analysis.candidates import hardware_of, model_labels
from lorabench.analysis.facts import ExperimentFacts, ModelFactsShown, Overview
from lorabench.analysis.validation import ValidationRun
from lorabench.records.schema import Status


def overview_of(runs: Sequence[ValidationRun], corpora: tuple[str, ...], varied: tuple[str, ...]) -> Overview:
    """Counts, names, versions and times."""
    counts = Counter(run.status for run in runs)
    finished = [run.finished_at for run in runs if run.finished_at is not None]
    names = {run.spec.dataset for run in runs}
    return Overview(
        num_runs=len(runs),
        num_by_status={status: counts[status] for status in Status if counts[status]},
        experiments=_experiments(runs),
        models=_models(runs),
        corpora=corpora or tuple(sorted(names)),
        seeds=tuple(sorted({run.spec.seed for run in runs})),
        varied=varied,
        hardware=tuple(sorted({hardware_of(run.environment) for run in runs})),
        lorabench_versions=tuple(sorted({run.environment.lorabench_version for run in runs})),
        code=tuple(sorted({_code(run) for run in runs})),
        last_finished_at=max(finished, default=None),
        train_seconds=sum(run.speed.train_seconds for run in runs if run.speed is not None),
    )


def _experiments(runs: Sequence[ValidationRun]) -> tuple[ExperimentFacts, ...]:
    members: dict[str, list[ValidationRun]] = defaultdict(list)
    for run in runs:
        members[run.experiment].append(run)
    return tuple(
        ExperimentFacts(
            name=name,
            question=next((run.question for run in found if run.question), ""),
            num_runs=len(found),
            num_completed=sum(run.status is Status.COMPLETED for run in found),
            commands=tuple(dict.fromkeys(run.environment.command for run in found)),
        )
        for name, found in sorted(members.items())
    )


def _models(runs: Sequence[ValidationRun]) -> tuple[ModelFactsShown, ...]:
    labels = model_labels(runs)
    shown: dict[tuple[str, str], ModelFactsShown] = {}
    for run in runs:
        key = (run.spec.model, run.spec.model_revision)
        if key in shown and (run.model is None or shown[key].num_parameters is not None):
            continue
        facts = run.model
        shown[key] = ModelFactsShown(
            name=labels[key],
            revision=run.spec.model_revision,
            family=facts.family if facts else "",
            num_parameters=facts.num_parameters if facts else None,
            licence=facts.licence if facts else None,
            weights_note=facts.weights_note if facts else None,
            pinned=facts is None or facts.pinned,
        )
    return tuple(shown[key] for key in sorted(shown))


def _code(run: ValidationRun) -> str:
    environment = run.environment
    if environment.git_commit is None:
        return f"code {environment.code_sha256[:12]}"
    return f"commit {environment.git_commit[:12]}" + (" (changed)" if environment.git_dirty else "")
