"""What `evaluation.generate` asks for: what a model answers, and by which metrics its answers are judged."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lorabench.core.canonical import fingerprint
from lorabench.core.errors import ConfigError, DataError, near_matches
from lorabench.core.home import user_path
from lorabench.core.plain_yaml import MAX_FILE_BYTES
from lorabench.core.settings import MAX_REFERENCE, Frozen
from lorabench.corpora.planning import DatasetPlan

METRICS = ("exact_match", "contains", "regex", "rouge_l", "json_valid")
SPLITS = ("validation", "test")
_FUNCTION = re.compile(r"(?P<path>.+\.py):(?P<name>[^\W\d]\w*)", re.DOTALL)
MAX_METRICS = 20


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class GenerateSettings(Frozen):
    """`evaluation.generate`: completions are written greedily and compared with those of the corpus."""

    metric: Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1, max_length=MAX_METRICS)]
    """Names of `METRICS`, or `FILE.py:function`."""
    pattern: Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE)] | None = None
    """Of the metric `regex`."""
    max_new_tokens: Annotated[int, Field(ge=1, le=65_536)] = 64
    num_examples: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """At most so many documents of validation, and as many of test."""

    @field_validator("metric")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in METRICS and _FUNCTION.fullmatch(name) is None:
                raise ValueError(
                    f"there is no metric {name[:80]!r}; accepted: {', '.join(METRICS)}, or FILE.py:function."
                    f"{near_matches(name, METRICS)}"
                )
        if len({metric_name(name) for name in names}) < len(names):
            raise ValueError("two metrics have one name; list each once")
        return names

    @model_validator(mode="after")
    def _check_pattern(self) -> GenerateSettings:
        if ("regex" in self.metric) != (self.pattern is not None):
            raise ValueError("the metric regex and the key pattern go together; give both or neither")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"the pattern {str(self.pattern)[:80]!r} is no regular expression: {error}") from None
        return self


def metric_name(metric: str) -> str:
    """What records and tables call it: of a function the file's name without its folder."""
    match = _FUNCTION.fullmatch(metric)
    return metric if match is None else f"{Path(match['path']).name}:{match['name']}"


def function_of(metric: str) -> tuple[Path, str] | None:
    """File and function that a metric means; None for one of `METRICS`."""
    match = None if metric in METRICS else _FUNCTION.fullmatch(metric)
    return None if match is None else (user_path(match["path"]), match["name"])


@dataclass(frozen=True)
class AnswersRequest:
    """What is to be answered by an adapter and its base."""

    metrics: Mapping[str, str]
    """By name: the metric, of functions with the file's absolute path."""
    sources: Mapping[str, str]
    """By the names of metrics that are functions: the file's content, which is what runs, wherever it runs."""
    pattern: str | None
    max_new_tokens: int
    num_examples: int
    """Of each split, at most."""
    splits: tuple[str, ...] = field(default=SPLITS)

    @property
    def revision(self) -> str:
        """A hash of all but the splits: answers with the same one are those that are asked for."""
        names = [[name, self.sources.get(name)] for name in sorted(self.metrics)]
        return fingerprint([names, self.pattern, self.max_new_tokens, self.num_examples])


def plan_answers(settings: GenerateSettings | None, corpus: DatasetPlan) -> AnswersRequest | None:
    """What is to be answered. Raises DataError for a corpus without questions, or a function that is not there."""
    if settings is None:
        return None
    if corpus.format == "text":
        raise DataError(no_questions(corpus.name))
    metrics: dict[str, str] = {}
    sources: dict[str, str] = {}
    for metric in settings.metric:
        name = metric_name(metric)
        if (function := function_of(metric)) is not None:
            path = function[0].absolute()
            metric = f"{path}:{function[1]}"
            sources[name] = _checked_source(path, function[1])
        metrics[name] = metric
    return AnswersRequest(metrics, sources, settings.pattern, settings.max_new_tokens, settings.num_examples)


def answer_work(request: AnswersRequest | None, corpus: DatasetPlan) -> tuple[int, int]:
    """How many answers a model writes, about, and the most tokens of each: test has about as many as validation."""
    if request is None:
        return 0, 0
    known = corpus.num_validation_documents
    each = request.num_examples if known is None else min(known, request.num_examples)
    return len(request.splits) * each, request.max_new_tokens


def check_room(request: AnswersRequest | None, model: str, max_context_length: int) -> None:
    """Raise ConfigError where an answer alone fills what the model can read."""
    if request is not None and request.max_new_tokens >= max_context_length:
        raise ConfigError(
            f"evaluation.generate: max_new_tokens: {request.max_new_tokens} leaves {model} no room for a prompt; it "
            f"reads {max_context_length} tokens, so give fewer"
        )


def no_questions(corpus: str) -> str:
    """Why nothing can be generated for a corpus of plain text."""
    return (
        f"evaluation.generate: {corpus} is plain text, which asks nothing; leave generate out, or give conversations "
        "or rows of prompt and completion"
    )


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"evaluation.generate: {path}: the file is larger than {MAX_FILE_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"evaluation.generate: {path}: there is no such file; give FILE.py:function") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"evaluation.generate: {path}: it cannot be read: {reason}") from None


def _checked_source(path: Path, function: str) -> str:
    """The file's content, in which a function of that name is defined or imported; nothing of it is run."""
    content = _read(path)
    try:
        module = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        reason = f"{error.msg} (line {error.lineno})" if isinstance(error, SyntaxError) else str(error)
        raise DataError(f"evaluation.generate: {path}: it is not valid Python: {reason}") from None
    names = set(_defined(module.body))
    if function not in names:
        raise DataError(
            f"evaluation.generate: {path}: there is no function {function!r} in it.{near_matches(function, names)}"
        )
    return content


def _defined(body: Sequence[ast.stmt]) -> list[str]:
    """Names that a module's statements give a value, those within conditions included."""
    found: list[str] = []
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found.append(statement.name)
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            found += [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
        for node in ast.iter_child_nodes(statement):
            found += [name.id for name in ast.walk(node) if isinstance(name, ast.Name)]
        found += _defined([child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt)])
    return found
