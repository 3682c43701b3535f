"""What a form answers to the questions that its run answered (`evaluation.generate`), beside the adapter's answers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lorabench.core.errors import DataError
from lorabench.core.storage import write_atomically
from lorabench.deploy.engine import Scorer
from lorabench.experiment.generate import METRICS, AnswersRequest
from lorabench.records.measured import AnswerFigure, Answers
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore
from lorabench.runs.answering import Answering
from lorabench.runs.group import GroupWork


def judged_again(answers: Answers) -> dict[str, AnswerFigure]:
    """The metrics that can be: functions of the user's own are not kept with the run."""
    return {name: figure for name, figure in answers.metrics.items() if name in METRICS}


def answer_again(
    run: RunRecord, before: Answers, work: GroupWork, scorer: Scorer, store: RecordStore, folder: Path
) -> Answers:
    """A split, answered by a form and written into `folder`: its figures as `adapted`, the adapter's as `base`.

    Raises DataError where the questions are not those that the run answered, DiskError where its answers are damaged.
    """
    adapter = store.answers(run, before)
    request = AnswersRequest(
        metrics={name: name for name in judged_again(before)},
        sources={},
        pattern=before.pattern,
        max_new_tokens=before.max_new_tokens,
        num_examples=before.num_examples + before.num_left_out,
        splits=(before.split,),
    )
    asked = Answering.of(work, run.spec, request, before.split)
    by_hash = {texts["document_hash"]: place for place, texts in enumerate(adapter.texts)}
    if {question.document_hash for question in asked.questions} != set(by_hash):
        raise DataError(f"{run.run_id}: the questions of {before.split} are not those that the run answered")
    found = scorer.answers(asked)
    scores = asked.judged(found)
    order = [by_hash[question.document_hash] for question in asked.questions]
    base_scores = {name: adapter.scores[name][order] for name in scores}
    texts = pd.DataFrame([adapter.texts[place] for place in order])
    table = texts.assign(base_answer=texts["answer"], answer=list(found.texts), num_tokens=found.num_tokens)
    for prefix, values in (("", scores), ("base_", base_scores)):
        table = table.assign(**{f"{prefix}score:{name}": numbers for name, numbers in values.items()})
    file = f"answers-{before.split}.parquet"
    write_atomically(folder / file, table.to_parquet(index=False, compression="zstd"))
    update = {
        "metrics": {
            name: AnswerFigure(base=float(base_scores[name].mean()), adapted=float(values.mean()))
            for name, values in scores.items()
        },
        "num_cut": found.num_cut,
        "base_num_cut": before.num_cut,
        "num_times": 1,
        "documents": file,
    }
    return before.model_copy(update=update)
