"""Metrics of answers: each takes an answer and the corpus's own, and gives a number; higher is better."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from lorabench.core.canonical import fingerprint
from lorabench.core.errors import DataError
from lorabench.experiment.generate import AnswersRequest, function_of

Metric = Callable[[str, str], float]
_WORD = re.compile(r"[^\W_]+")


def exact_match(answer: str, reference: str) -> float:
    """1 where they are the same, white space around them apart."""
    return float(answer.strip() == reference.strip())


def contains(answer: str, reference: str) -> float:
    """1 where the reference, without white space around it, stands somewhere in the answer."""
    return float(reference.strip() in answer)


def json_valid(answer: str, reference: str) -> float:
    """1 where the whole answer is one JSON value (RFC 8259, so neither NaN nor Infinity)."""
    try:
        json.loads(answer, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words: letters and digits in lower case, without stemming."""
    said, wanted = _WORD.findall(answer.lower()), _WORD.findall(reference.lower())
    common = longest_common_subsequence(said, wanted)
    return 2.0 * common / (len(said) + len(wanted)) if common else 0.0


def regex(pattern: str) -> Metric:
    """Without a group: 1 where the pattern is found in the answer. With one: where it finds the same in both."""
    compiled = re.compile(pattern)

    def compare(answer: str, reference: str) -> float:
        found = compiled.search(answer)
        if not compiled.groups or found is None:
            return float(found is not None)
        wanted = compiled.search(reference)
        return float(wanted is not None and found[1] is not None and found[1] == wanted[1])

    return compare


def longest_common_subsequence(first: list[str], second: list[str]) -> int:
    """Its length. A bit for each word of `first`: those that are 0 in the end are in it (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        matching = row & places.get(word, 0)
        row = ((row + matching) | (row - matching)) & every
    return len(first) - row.bit_count()


def load_metrics(request: AnswersRequest) -> dict[str, Metric]:
    """By name. Runs files of functions; raises DataError where one cannot be run."""
    known: dict[str, Metric] = {
        "exact_match": exact_match,
        "contains": contains,
        "rouge_l": rouge_l,
        "json_valid": json_valid,
    }
    if request.pattern is not None:
        known["regex"] = regex(request.pattern)
    return {
        name: known[metric] if metric in known else _load(metric, request.sources[name])
        for name, metric in request.metrics.items()
    }


def judge(name: str, metric: Metric, place: int, answer: str, reference: str) -> float:
    """What the metric gives for an answer. Raises DataError where it raises, or gives no finite number."""
    try:
        value: Any = metric(answer, reference)
        score = float(value) if isinstance(value, int | float) or hasattr(value, "__float__") else math.nan
    except (Exception, SystemExit) as error:  # whatever a user's function meets
        raise DataError(
            f"evaluation.generate: {name} fails on answer {place + 1}: {type(error).__name__}: {_line(error)}"
        ) from None
    if not math.isfinite(score):
        raise DataError(f"evaluation.generate: {name} gives {str(value)[:40]!r} for answer {place + 1}, not a number")
    return score


def _load(metric: str, source: str) -> Metric:
    """A function of the user's own, from its file as it was when the runs were planned."""
    function = function_of(metric)
    assert function is not None
    path, name = function
    module = ModuleType(f"lorabench_metrics_{fingerprint([str(path), source])[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look themselves up there
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:  # whatever a user's file meets
        raise DataError(f"evaluation.generate: {path}: {type(error).__name__}: {_line(error)}") from None
    found = getattr(module, name, None)
    if not callable(found):
        raise DataError(f"evaluation.generate: {path}: {name} is not a function")
    chosen: Metric = found
    return chosen


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
