"""Gathers runs into candidates (all but the seed) on corpora (one set of validation documents), and pairs them."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lorabench.analysis.comparisons import correct, verdict_of
from lorabench.analysis.findings import Candidate, Cost, Setting, Trained
from lorabench.analysis.pairing import MISSING_DOCUMENTS, Measured, Pairs, seed_note
from lorabench.analysis.statistics import Interval, estimate_figure
from lorabench.analysis.tried import still_falls, with_rate_edges
from lorabench.analysis.validation import ValidationRun
from lorabench.core.canonical import fingerprint
from lorabench.core.formatting import setting
from lorabench.core.revisions import short_revision
from lorabench.experiment.identity import configuration_of
from lorabench.experiment.schema import RunSpec
from lorabench.methods.settings import DEFAULT_METHOD
from lorabench.records.columns import AXES, axis_values
from lorabench.records.schema import Environment, Scores, Status


@dataclass(frozen=True)
class CorpusGroup:
    """Candidates that were scored on the same documents, lowest figure first."""

    label: str
    runs: tuple[ValidationRun, ...]
    """With a result."""
    unfinished: tuple[ValidationRun, ...]
    candidates: tuple[Measured, ...]
    on_other_text: tuple[ValidationRun, ...] = ()
    """Earlier runs on the corpus whose figures are of other documents, or of another stride: compared with none."""

    @cached_property
    def pairs(self) -> Pairs:
        """Comparisons between its candidates."""
        return Pairs(self.candidates)

    @cached_property
    def stopped_early(self) -> frozenset[str]:
        """Configurations, whatever the corpus, that a search stopped: no seed of them was trained to its end."""
        stopped = (run.spec for run in self.unfinished if run.status is Status.STOPPED_EARLY)
        return frozenset(map(_on_any_corpus, stopped)) - {_on_any_corpus(run.spec) for run in self.runs}

    def of_model(self, model: str) -> list[Measured]:
        """The model's candidates."""
        return [item for item in self.candidates if item.shown.model == model]

    def best_of_each_model(self) -> list[Measured]:
        """The candidate with the lowest figure of every model."""
        return [self.of_model(model)[0] for model in sorted({item.shown.model for item in self.candidates})]


def by_configuration(groups: Sequence[CorpusGroup]) -> list[list[Measured]]:
    """The candidates of each configuration, one for each group where it has a result, in the groups' order."""
    everywhere: dict[str, list[Measured]] = defaultdict(list)
    for group in groups:
        for item in group.candidates:
            everywhere[item.shown.configuration].append(item)
    return list(everywhere.values())


def _on_any_corpus(spec: RunSpec) -> str:
    return configuration_of(spec.model_copy(update={"dataset": "", "dataset_revision": ""}))


def settings_of(spec: RunSpec, model: str) -> dict[str, Setting]:
    """Every axis by its name, the model under the name that tells it apart."""
    return axis_values(spec) | {"model": model}


def varied_axes(settings: Iterable[Mapping[str, Setting]]) -> tuple[str, ...]:
    """Axes with more than one value; that `full` has no rank is no value of its own."""
    every = list(settings)
    return tuple(axis for axis in AXES if len({values[axis] for values in every} - {None}) > 1)


def describe(settings: Mapping[str, Setting], varied: Sequence[str]) -> str:
    """What sets a configuration apart, always with model, method or rank, and rate."""
    parts = [setting(settings["model"])]
    for axis in AXES:
        value = settings[axis]
        if axis == "model" or value is None:
            continue
        if axis in varied or axis in {"rank", "learning_rate"} or (axis == "method" and value != DEFAULT_METHOD):
            parts.append(named_setting(axis, value))
    return ", ".join(parts)


def describe_all(settings: Sequence[Mapping[str, Setting]]) -> list[str]:
    """Each configuration by what sets it apart from the others."""
    varied = varied_axes(settings)
    return [describe(values, varied) for values in settings]


def describe_specs(specs: Sequence[RunSpec]) -> list[str]:
    """The same of specifications; models by the names that these give."""
    return describe_all([settings_of(spec, spec.model) for spec in specs])


def named_setting(axis: str, value: Setting) -> str:
    """`rank 16`, `rate 0.001`; of a model or a method the name alone."""
    name = {"learning_rate": AXES[axis].short_title, "method": "", "model": ""}.get(axis, AXES[axis].title)
    return f"{name} {setting(value)}".strip()


def contrast(label: str, other: str) -> str:
    """What of a configuration's label is not in another one: `rank 8`."""
    known = set(other.split(", "))
    return ", ".join(part for part in label.split(", ") if part not in known) or label


def model_labels(runs: Sequence[ValidationRun]) -> dict[tuple[str, str], str]:
    """(name, revision) -> name, with the revision where one name stands for several."""
    return labels_of({(run.spec.model, run.spec.model_revision) for run in runs})


def settings_of_runs(runs: Sequence[ValidationRun]) -> list[dict[str, Setting]]:
    """Of each run, every axis by its name."""
    models = model_labels(runs)
    return [settings_of(run.spec, models[run.spec.model, run.spec.model_revision]) for run in runs]


def labels_of(pairs: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(name, revision) -> name, with the revision where one name stands for several."""
    count = Counter(name for name, _ in pairs)
    return {
        (name, revision): name if count[name] == 1 else f"{name} (revision {short_revision(revision)})"
        for name, revision in sorted(pairs)
    }


def gather(runs: Sequence[ValidationRun]) -> tuple[list[CorpusGroup], list[str]]:
    """Corpora with their candidates, and sentences on runs that could not be used as they are."""
    models, problems = model_labels(runs), list[str]()
    varied = varied_axes(settings_of_runs(runs))
    groups = []
    for label, scored in _corpora(runs).items():
        members = scored.runs
        unfinished = [
            run
            for run in runs
            if not run.has_result and any(_same_corpus(run.spec, member.spec) for member in members[:1])
        ]
        configurations: dict[str, list[ValidationRun]] = defaultdict(list)
        for run in members:
            configurations[configuration_of(run.spec)].append(run)
        measured = []
        for key, seeds in configurations.items():
            kept, repeated = _one_run_per_seed(seeds)
            problems += [
                f"{run.run_id}: the same configuration and seed as {other.run_id}, which is the later and is used"
                for run, other in repeated
            ]
            failed = [run for run in unfinished if run.has_failed and configuration_of(run.spec) == key]
            settings = settings_of(kept[0].spec, models[kept[0].spec.model, kept[0].spec.model_revision])
            measured.append(_measure(label, settings, varied, kept, failed))
        measured.sort(key=lambda item: (item.estimate, item.shown.label))
        shown = with_rate_edges(measured, unfinished)
        groups.append(CorpusGroup(label, tuple(members), tuple(unfinished), shown, tuple(scored.on_other_text)))
    return _judge_against_base(groups), problems


@dataclass(frozen=True)
class _Scored:
    """Runs with a result that were scored on the same documents of a corpus."""

    runs: list[ValidationRun]
    on_other_text: list[ValidationRun]
    """Earlier ones of the same corpus, scored on other documents of it or with another stride."""


def _corpora(runs: Sequence[ValidationRun]) -> dict[str, _Scored]:
    """By label. Of a corpus that was scored on several texts, the one that was scored last."""
    coarse: dict[tuple[object, ...], list[ValidationRun]] = defaultdict(list)
    for run in runs:
        if run.has_result and run.validation is not None:
            sizes = (run.validation.num_documents, run.validation.num_bytes)
            coarse[(run.spec.dataset, run.spec.dataset_revision, run.spec.evaluation.stride, *sizes)].append(run)
    by_corpus: dict[tuple[str, str], list[list[ValidationRun]]] = defaultdict(list)
    for (dataset, revision, *_), members in coarse.items():
        by_corpus[str(dataset), str(revision)] += _by_text(members)
    names = labels_of(set(by_corpus))
    found = {}
    for corpus in sorted(by_corpus):
        *earlier, last = sorted(by_corpus[corpus], key=_last_scored)
        found[names[corpus]] = _Scored(last, [run for members in earlier for run in members])
    return found


def _last_scored(members: Sequence[ValidationRun]) -> tuple[str, int, int]:
    """When; of those begun in one second, how many runs, on how much text."""
    sizes = [run.validation.num_bytes for run in members if run.validation is not None]
    return max(run.started_at for run in members), len(members), max(sizes)


def _by_text(members: Sequence[ValidationRun]) -> list[list[ValidationRun]]:
    """By the documents that were scored; where they are not known, with those that most were scored on."""
    texts: dict[str, list[ValidationRun]] = defaultdict(list)
    for run in members:
        texts[run.documents.fingerprint if run.documents is not None else ""].append(run)
    unknown = texts.pop("", [])
    largest, *others = sorted(texts.values(), key=len, reverse=True) or [[]]
    return [largest + unknown, *others]


def _same_corpus(one: RunSpec, two: RunSpec) -> bool:
    return (one.dataset, one.dataset_revision, one.evaluation.stride, one.evaluation.validation_bytes) == (
        two.dataset,
        two.dataset_revision,
        two.evaluation.stride,
        two.evaluation.validation_bytes,
    )


def _one_run_per_seed(
    runs: Sequence[ValidationRun],
) -> tuple[list[ValidationRun], list[tuple[ValidationRun, ValidationRun]]]:
    kept: dict[int, ValidationRun] = {}
    repeated = []
    for run in sorted(runs, key=lambda run: (run.started_at, run.run_id)):
        if run.spec.seed in kept:
            repeated.append((kept[run.spec.seed], run))
        kept[run.spec.seed] = run
    return [kept[seed] for seed in sorted(kept)], repeated


def _measure(
    corpus: str,
    settings: dict[str, Setting],
    varied: Sequence[str],
    runs: Sequence[ValidationRun],
    failed: Sequence[ValidationRun],
) -> Measured:
    scores = [run.validation for run in runs if run.validation is not None]
    figures = [item.bits_per_byte for item in scores]
    bases = [run.base.bits_per_byte for run in runs if run.base is not None]
    seeds = tuple(run.spec.seed for run in runs)
    documents = [run.documents for run in runs if run.documents is not None]
    nll = base_nll = num_bytes = figure = None
    bits = Interval(statistics.fmean(figures), None, None, scores[0].num_documents, len(runs), MISSING_DOCUMENTS)
    gain = None
    if bases:
        estimate = statistics.fmean(bases) - bits.estimate
        gain = Interval(estimate, None, None, scores[0].num_documents, len(runs), MISSING_DOCUMENTS)
    if len(documents) == len(runs):
        nll, num_bytes = np.stack([item.nll for item in documents]), documents[0].num_bytes
        figure = estimate_figure(nll, num_bytes)
        bits = figure.interval(len(num_bytes), len(runs), seed_note(seeds))
        base_rows = [item.base_nll for item in documents if item.base_nll is not None]
        base_nll = np.stack(base_rows) if len(base_rows) == len(runs) else None
    mean = _mean_scores(scores)
    last = [run.evaluations[-1].validation.bits_per_byte for run in runs if run.evaluations]
    best = [min(item.validation.bits_per_byte for item in run.evaluations) for run in runs if run.evaluations]
    losses = [run.last_training_loss for run in runs if run.last_training_loss is not None]
    shown = Candidate(
        key="c" + fingerprint([corpus, configuration_of(runs[0].spec)])[:12],
        corpus=corpus,
        model=str(settings["model"]),
        label=describe(settings, varied),
        settings=settings,
        seeds=seeds,
        run_ids=tuple(run.run_id for run in runs),
        bits_per_byte=bits,
        gain=gain,
        base_bits_per_byte=statistics.fmean(bases) if bases else None,
        seed_deviation=statistics.stdev(figures) if len(figures) > 1 else None,
        perplexity=mean.perplexity,
        bits_per_token=mean.bits_per_token,
        word_perplexity=mean.word_perplexity,
        last_bits_per_byte=statistics.fmean(last) if last else None,
        best_checkpoint_bits_per_byte=statistics.fmean(best) if best else None,
        last_training_loss=statistics.fmean(losses) if losses else None,
        cost=_cost(runs),
        trained=_trained(runs),
        validation_seen=next((run.budget.validation_seen for run in runs if run.budget is not None), None),
        without_result={run.spec.seed: run.status for run in failed if run.spec.seed not in seeds},
        still_falls=still_falls([run.evaluations for run in runs]),
    )
    return Measured(shown, nll, base_nll, num_bytes, figure, tuple(runs))


def _mean_scores(scores: Sequence[Scores]) -> Scores:
    """The same text, the mean loss over seeds."""
    nll = statistics.fmean(item.negative_log_likelihood for item in scores)
    return scores[0].model_copy(update={"negative_log_likelihood": nll})


def hardware_of(environment: Environment) -> str:
    """What timings may be compared within."""
    cores = f", {environment.num_cores} cores" if environment.device == "cpu" else ""
    return f"{environment.num_devices} × {environment.device_name} ({environment.device}{cores})"


def _trained(runs: Sequence[ValidationRun]) -> Trained | None:
    budgets = [run.budget for run in runs if run.budget is not None]
    if not budgets:
        return None
    seconds = [run.speed.train_seconds for run in runs if run.speed is not None and run.speed.train_seconds]
    middle = sorted(budgets, key=lambda budget: budget.steps)[len(budgets) // 2]
    return Trained(middle.train_bytes, middle.epochs, middle.steps, statistics.median(seconds) if seconds else None)


def _cost(runs: Sequence[ValidationRun]) -> Cost:
    """Medians over the runs on the hardware that most of them ran on."""
    hardware = Counter(hardware_of(run.environment) for run in runs).most_common(1)[0][0]
    same = [run for run in runs if hardware_of(run.environment) == hardware]
    speeds = [run.speed.tokens_per_second for run in same if run.speed and run.speed.tokens_per_second]
    bytes_per_second = [
        run.speed.tokens_per_second * run.budget.train_bytes / run.budget.train_tokens
        for run in same
        if run.speed and run.speed.tokens_per_second and run.budget and run.budget.train_tokens
    ]
    return Cost(
        hardware=hardware,
        precision=runs[0].spec.training.precision,
        tokens_per_second=_median(speeds),
        bytes_per_second=_median(bytes_per_second),
        train_seconds=_median([run.speed.train_seconds for run in same if run.speed]),
        peak_memory_bytes=_median([run.speed.peak_memory_bytes for run in same if run.speed]),
        adapter_bytes=_median([run.adapter.adapter_bytes for run in same if run.adapter and run.adapter.adapter_bytes]),
        trainable_parameters=next((run.adapter.trainable_parameters for run in same if run.adapter), None),
        speeds=tuple(bytes_per_second),
    )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _judge_against_base(groups: Sequence[CorpusGroup]) -> list[CorpusGroup]:
    """Give each candidate its gain over its base with a verdict, corrected over all candidates and corpora."""
    gains = {item.key: group.pairs.gain(item.key) for group in groups for item in group.candidates}
    corrections = dict(zip(gains, correct([gain.difference for gain in gains.values()]), strict=True))

    def judged(item: Measured) -> Measured:
        gain, correction = gains[item.key], corrections[item.key]
        if gain.difference is None or correction is None:
            return item
        opposite = verdict_of(-float(gain.difference.estimate), correction.adjusted_p)
        shown = replace(item.shown, gain=gain.interval(correction.factor), versus_base=opposite)
        return replace(item, shown=shown)

    return [replace(group, candidates=tuple(judged(item) for item in group.candidates)) for group in groups]
