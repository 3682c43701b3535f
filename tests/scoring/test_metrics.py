"""Metrics of answers, against values worked out by hand."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lorabench.core.errors import ConfigError, DataError
from lorabench.corpora.planning import DatasetPlan
from lorabench.experiment.generate import METRICS, AnswersRequest, GenerateSettings, plan_answers
from lorabench.experiment.schema import Experiment, build_experiment, load_experiment
from lorabench.scoring.metrics import judge, load_metrics, longest_common_subsequence

CASES = [
    ("exact_match", None, " A stone.\n", "A stone.", 1.0),
    ("exact_match", None, "A stone", "A stone.", 0.0),
    ("contains", None, "It is Paris, of course", "Paris\n", 1.0),
    ("contains", None, "It is paris", "Paris", 0.0),
    ("regex", r"\d+", "in 1789", "1790", 1.0),
    ("regex", r"\d+", "long ago", "1790", 0.0),
    ("regex", r"#### (\d+)", "so\n#### 42", "#### 42", 1.0),
    ("regex", r"#### (\d+)", "so\n#### 41", "#### 42", 0.0),
    ("regex", r"#### (\d+)", "#### 42", "forty-two", 0.0),
    ("regex", r"a(b)?", "a", "a", 0.0),
    ("json_valid", None, ' {"a": [1, null]}\n', "", 1.0),
    ("json_valid", None, '{"a": 1} and more', "", 0.0),
    ("json_valid", None, "NaN", "", 0.0),
    ("json_valid", None, "[" * 100_000, "", 0.0),
    ("rouge_l", None, "police kill the gunman", "police killed the gunman", 0.75),
    ("rouge_l", None, "the gunman kill police", "police killed the gunman", 0.5),
    ("rouge_l", None, "The CAT, the cat!", "the-cat", 2 * 2 / (4 + 2)),
    ("rouge_l", None, "Größe über_all", "größe all", 2 * 2 / (3 + 2)),
    ("rouge_l", None, "", "a", 0.0),
    ("rouge_l", None, "...", "...", 0.0),
]
TEXT = DatasetPlan("notes", "notes", "1", True, (), 0, {"train": 1, "validation": 1, "test": 1}, 3, True, format="text")
CHAT = DatasetPlan("chat", "chat", "1", True, (), 0, {"train": 1, "validation": 1, "test": 1}, 3, True, format="chat")


def request(metric: str | list[str], **others: object) -> AnswersRequest:
    found = plan_answers(GenerateSettings.model_validate({"metric": metric, **others}), CHAT)
    assert found is not None
    return found


@pytest.mark.parametrize(("metric", "pattern", "answer", "reference", "expected"), CASES)
def test_a_metric_gives(metric: str, pattern: str | None, answer: str, reference: str, expected: float) -> None:
    (function,) = load_metrics(request(metric, pattern=pattern)).values()
    assert function(answer, reference) == pytest.approx(expected, abs=1e-12)


def test_every_metric_is_there() -> None:
    assert list(load_metrics(request(list(METRICS), pattern="a"))) == list(METRICS)


def test_common_subsequences_are_those_of_the_textbook() -> None:
    generator = random.Random(0)
    for _ in range(200):
        first, second = ([generator.choice("abcd") for _ in range(generator.randint(0, 40))] for _ in range(2))
        rows = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                rows[i + 1][j + 1] = rows[i][j] + 1 if a == b else max(rows[i][j + 1], rows[i + 1][j])
        assert longest_common_subsequence(first, second) == rows[-1][-1]


def write_function(folder: Path, body: str, name: str = "mine.py") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"def score(answer, reference):\n    {body}\n", encoding="utf-8")
    return f"{folder / name}:score"


def test_a_function_of_one_s_own(tmp_path: Path) -> None:
    asked = request(["exact_match", write_function(tmp_path, "return len(answer) > len(reference)")])
    functions = load_metrics(asked)
    assert [judge(name, function, 0, "ab", "a") for name, function in functions.items()] == [0.0, 1.0]
    assert list(functions) == ["exact_match", "mine.py:score"]
    again = request(["exact_match", write_function(tmp_path, "return 0.25")])
    assert again.revision != asked.revision
    assert again.revision == request([write_function(tmp_path / "b", "return 0.25"), "exact_match"]).revision
    assert judge("mine", load_metrics(asked)["mine.py:score"], 0, "ab", "a") == 1.0  # as it was when it was planned


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('x')", r"mine.py:score fails on answer 3: KeyError: 'x'"),
        ("import sys; sys.exit(3)", r"mine.py:score fails on answer 3: SystemExit: 3"),
        ("return '1'", r"mine.py:score gives '1' for answer 3, not a number"),
        ("return None", r"gives 'None' for answer 3, not a number"),
        ("return float('nan')", r"gives 'nan' for answer 3, not a number"),
    ],
)
def test_a_function_that_fails_is_named(body: str, message: str, tmp_path: Path) -> None:
    ((name, function),) = load_metrics(request(write_function(tmp_path, body))).items()
    with pytest.raises(DataError, match=message):
        judge(name, function, 2, "a", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file; give FILE.py:function"),
        ("def scor(a, b): pass", r"there is no function 'score' in it. Did you mean 'scor'\?"),
        ("def score(", r"it is not valid Python: '\(' was never closed \(line 1\)"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_the_plan(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "mine.py").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"mine.py: {message}"):
        request(f"{tmp_path / 'mine.py'}:score")


def test_a_file_that_does_not_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from nowhere_at_all import score", encoding="utf-8")
    with pytest.raises(DataError, match=r"mine.py: ModuleNotFoundError: No module named 'nowhere_at_all'"):
        load_metrics(request(f"{tmp_path / 'mine.py'}:score"))


def experiment(generate: object) -> Experiment:
    return build_experiment({"name": "a", "models": "m", "datasets": "d", "evaluation": {"generate": generate}})


@pytest.mark.parametrize(
    ("generate", "message"),
    [
        ("rouge", r"there is no metric 'rouge'; .* or FILE.py:function. Did you mean 'rouge_l' or"),
        ({"metric": "regex"}, "the metric regex and the key pattern go together; give both or neither"),
        ({"metric": "contains", "pattern": "a"}, "go together"),
        ({"metric": "regex", "pattern": "("}, r"the pattern '\(' is no regular expression"),
        (["contains", "contains"], "two metrics have one name"),
        (["a/m.py:f", "b/m.py:f"], "two metrics have one name"),
        ({"metric": "contains", "max_tokens": 3}, r"evaluation.generate.max_tokens: unknown key. Did you mean"),
        ({"metric": "contains", "num_examples": 0}, "evaluation.generate.num_examples: 0 is not accepted"),
        ({"metric": []}, "evaluation.generate.metric"),
        ({}, "evaluation.generate.metric: the key is missing"),
    ],
)
def test_what_means_nothing_is_refused(generate: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment(generate)


def test_short_forms_and_the_way_back() -> None:
    for given in ("rouge_l", ["rouge_l"], {"metric": "rouge_l"}):
        found = experiment(given).evaluation.generate
        assert found == GenerateSettings(metric=("rouge_l",))
    whole = experiment({"metric": ["regex", "a/m.py:f"], "pattern": "a", "max_new_tokens": 3, "num_examples": 4})
    import yaml

    assert build_experiment(yaml.safe_load(whole.to_yaml())) == whole


def test_plain_text_is_refused_by_the_plan() -> None:
    with pytest.raises(DataError, match=r"evaluation.generate: notes is plain text, which asks nothing; leave"):
        plan_answers(GenerateSettings(metric=("contains",)), TEXT)
    assert plan_answers(None, TEXT) is None


def test_a_file_is_looked_up_beside_the_experiment_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "there" / "experiment.yaml"
    path.write_text("{name: a, models: m, datasets: chat, evaluation: {generate: [contains, 'mine.py:score']}}")
    with pytest.raises(ConfigError, match=r"generate.metric: mine.py: there is no such file, neither in .*there"):
        load_experiment(path)
    write_function(tmp_path, "return 0.0")
    assert load_experiment(path).evaluation.generate == GenerateSettings(metric=("contains", "mine.py:score"))
    there = write_function(tmp_path / "there", "return 0.0")
    assert load_experiment(path).evaluation.generate == GenerateSettings(metric=("contains", there))
    inner = load_experiment(path, ["evaluation.generate=mine.py:score"]).evaluation.generate
    assert inner == GenerateSettings(metric=(there,))
