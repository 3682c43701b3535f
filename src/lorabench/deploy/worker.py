"""One step of a deployment, in a process of its own: reads a job, answers in JSON.

A fresh process for each form, so that memory and loading time are those of this form, and a form that ends its process
ends no other.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

from lorabench.core.errors import LorabenchError
from lorabench.core.settings import Frozen
from lorabench.deploy.engine import ENGINES, Source

JobKind = Literal["score", "reference", "time"]


class Job(Frozen):
    """What to do with a form."""

    kind: JobKind
    run_id: str
    output_dir: Path
    source: Source
    results: Path
    """Folder in which per-document results or, of the reference, its log-probabilities are written."""
    reference: Path
    """File of the reference's log-probabilities, float32 [N, V]."""


def do_job(job: Job) -> dict[str, Any]:
    """What the job gives, as plain values. Raises LorabenchError."""
    if job.kind == "time":
        from lorabench.deploy.timing import time_form

        return time_form(job.source).model_dump()
    return _score(job)


def _score(job: Job) -> dict[str, Any]:
    import numpy as np

    from lorabench.core.machine import prepare_process
    from lorabench.core.storage import sha256_file
    from lorabench.deploy.answers import answer_again, judged_again
    from lorabench.deploy.quality import RunText, divergence
    from lorabench.deploy.subject import Subject
    from lorabench.records.store import RecordStore
    from lorabench.runs.group import write_table

    prepare_process()
    engine = ENGINES.get(job.source.engine)
    text = RunText.of(Subject.of(job.run_id, job.output_dir), job.output_dir, engine.scorer(job.source))
    probabilities = text.log_probabilities()
    if job.kind == "reference":
        temporary = job.reference.with_suffix(".writing.npy")
        np.save(temporary, probabilities)
        temporary.rename(job.reference)
        return {}
    found = divergence(probabilities, np.load(job.reference, mmap_mode="r"))
    del probabilities
    answer: dict[str, Any] = {"divergence": found.model_dump(), "versions": engine.versions(), "files": {}}
    for split in ("validation", "test"):
        scores = text.score(split)
        path = job.results / f"{split}.parquet"
        write_table(path, scores.table())
        answer[split] = scores.total().model_dump()
        answer["files"][path.name] = sha256_file(path)
    store, run = RecordStore(job.output_dir), text.subject.record
    again = [before for before in run.answers if judged_again(before)]
    found_answers = [answer_again(run, before, text.work, text.scorer, store, job.results) for before in again]
    answer["answers"] = [answers.model_dump(mode="json") for answers in found_answers]
    answer["files"] |= {answers.documents: sha256_file(job.results / answers.documents) for answers in found_answers}
    return answer


def _end_with_parent() -> None:
    """A deployment that is killed leaves no process that works on and disturbs the next one's figures."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    """Read a job from standard input; the answer is the last line of standard output."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        answer: dict[str, Any] = {"answer": do_job(Job.model_validate_json(sys.stdin.read()))}
    except LorabenchError as error:
        answer = {"problem": str(error)}
    except MemoryError:
        answer = {"problem": "out of memory", "out_of_memory": True}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
