"""The run record's schema. A record is one JSON file; docs/record.md explains it for readers of other programs.

Missing is null, with a reason in `status_reason` or beside the value. Derived figures (perplexity, bits per byte) are
computed from the sums kept here, so that they cannot disagree with them.
"""

from __future__ import annotations

import math
from enum import StrEnum

from pydantic import Field

from lorabench.experiment.schema import RunSpec
from lorabench.experiment.search import SearchSettings
from lorabench.records.measured import Answers, Facts, Measurement

SCHEMA_VERSION = 2
_LN2 = math.log(2.0)


class Status(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    CANCELLED = "cancelled"
    STOPPED_EARLY = "stopped_early"


class Scores(Facts):
    """Sums over one split of one corpus; every figure follows from them."""

    negative_log_likelihood: float = Field(ge=0.0)
    """Summed over scored tokens, in nats."""
    num_tokens: int = Field(ge=1)
    num_bytes: int = Field(ge=1)
    """UTF-8 bytes of the text scored: all of it, always."""
    num_words: int = Field(ge=0)
    num_documents: int = Field(ge=1)
    """Of which all or some text was scored."""
    effective_documents: float | None = None
    """How many of one length weigh as much: (sum b)² / sum b² over their bytes scored; None in earlier records."""
    end_of_turn_nll: float | None = Field(default=None, ge=0.0)
    """Of conversations: nats of the tokens that end answers, which are no part of the sums above."""
    num_end_of_turn_tokens: int | None = Field(default=None, ge=0)

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.negative_log_likelihood / self.num_tokens

    @property
    def perplexity(self) -> float:
        """Token perplexity; comparable within one tokenizer only."""
        return _exponential(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """The figure that compares models with different tokenizers."""
        return self.negative_log_likelihood / (_LN2 * self.num_bytes)

    @property
    def bits_per_token(self) -> float:
        """Comparable within one tokenizer only."""
        return self.loss / _LN2

    @property
    def word_perplexity(self) -> float:
        """Perplexity per white-space separated word."""
        return _exponential(self.negative_log_likelihood / max(1, self.num_words))

    @property
    def byte_perplexity(self) -> float:
        """2 to the bits per byte."""
        return _exponential(self.negative_log_likelihood / self.num_bytes)


def _exponential(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


class ModelFacts(Facts):
    """The base model as it was used."""

    name: str
    revision: str
    source: str
    family: str
    num_parameters: int
    licence: str | None
    tokenizer_sha256: str
    prefix_token_id: int
    weights_note: str | None = None
    """How the weights differ from the published ones, if they do (dequantised, random, …)."""
    pinned: bool = True


class DatasetFacts(Facts):
    """The corpus as it was used."""

    name: str
    revision: str
    source: str
    domain: str | None = None
    licence: str | None = None
    synthetic: bool = False
    pinned: bool = True
    contaminates: tuple[str, ...] = ()
    """Models that were trained on this text."""
    notes: str | None = None
    num_documents: dict[str, int]
    num_bytes: dict[str, int]
    """By split: train, validation, test; the whole corpus, before any budget."""
    removed: dict[str, int] = Field(default_factory=dict)
    """Documents removed, by reason: empty, exact_duplicates, near_duplicates, …"""
    near_duplicates: str = "remove"
    """`keep` where near copies of another split's documents were asked to stay."""
    content_sha256: str
    format: str = "text"
    """Of the rows: `text`, or that of conversations (`corpora.conversations.Format`): chat, sharegpt, alpaca, …"""


class ConversationFacts(Facts):
    """How conversations were read by this model: what a template adds is read, and not scored."""

    template: str
    """`the model's chat template`, or `lorabench's plain template` where it has none."""
    template_sha256: str
    end_of_turn: str
    """The text that ends an answer; empty where the template ends it with nothing."""
    num_train_left_out: int
    """Training conversations longer than the context: they are left out whole."""
    num_in_windows: dict[str, int]
    """By split: scored conversations longer than the context, whose answers were scored window by window."""


class AdapterFacts(Facts):
    """What was trained."""

    trainable_parameters: int
    alpha: float
    target_modules: tuple[str, ...]
    """Distinct names of the adapted modules."""
    module_paths: tuple[str, ...] = ()
    """Full paths of the adapted modules, read from the model; none for `full`, nor in records of earlier versions."""
    num_modules: int
    adapter_bytes: int | None = None
    """Size of the saved adapter, the tokenizer beside it apart."""
    execution_path: str
    """`fast`, or `reference`: the plain PEFT computation."""
    execution_reason: str = ""


class Budget(Facts):
    """What the run was given."""

    train_bytes: int
    train_documents: int
    train_tokens: int
    """Scored training tokens of one epoch."""
    num_rows: int
    steps: int
    epochs: int
    micro_batch_size: int
    accumulation_steps: int
    gradient_checkpointing: bool = False
    """Whether layers were computed once more in the backward pass, which changes no figure."""
    training_text_sha256: str
    """Of the training documents' hashes, in order."""
    validation_seen: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of the validation text's eight-word sequences that occur in the training text; None: not known."""


class Evaluation(Facts):
    """One validation scoring along the run."""

    step: int
    train_tokens_seen: int
    validation: Scores


class Rung(Facts):
    """Where a search compared its runs: this one as though it ended there."""

    share: float
    """Of the run's steps."""
    step: int
    own_steps: int
    """The last of its steps: its own cool-down, from which the run does not go on."""
    train_tokens_seen: int
    validation: Scores
    documents: str
    """The file of per-document results, within the run's folder."""
    documents_sha256: str


class Drift(Facts):
    """A corpus the adapter was not trained on: what it scored before and after."""

    dataset: str
    revision: str
    base: Scores
    adapted: Scores
    documents: str | None = None
    """The file of per-document results, within the run's folder; its hash is in the record's `files`."""
    measurement: Measurement | None = None

    @property
    def split(self) -> str | None:
        """What the record store calls its per-document results."""
        return None if self.documents is None else self.documents.removeprefix("documents/").removesuffix(".parquet")


class Sampling(Facts):
    """How the samples were written."""

    num_asked: int
    """There are fewer where the validation text has fewer documents that are long enough."""
    measurement: Measurement


class Sample(Facts):
    """A continuation of the beginning of a validation document."""

    document_hash: str
    prompt: str
    continuation: str
    base_continuation: str | None = None


class TaskMetric(Facts):
    """A figure of a task, of the base and of the adapter, with their standard errors where there are any."""

    base: float
    base_error: float | None = None
    adapted: float
    adapted_error: float | None = None
    difference_error: float | None = None
    """Of the difference, over pairs of answers to the same documents."""
    higher_is_better: bool | None = None


class TaskResult(Facts):
    """A task of lm-evaluation-harness that the base and the adapter did."""

    reference: str
    """The task, or the path of tasks of one's own."""
    revision: str
    task: str
    num_examples: int
    num_fewshot: int | None = None
    metrics: dict[str, TaskMetric]
    samples: str | None = None
    """The file of both models' answers, within the run's folder; its hash is in the record's `files`."""
    measurement: Measurement


class Speed(Facts):
    """Tokens per second = scored tokens trained on ÷ time in training steps after warm-up; nothing else counted."""

    tokens_per_second: float | None
    """Null when there were too few steps to leave a warm-up out; the reason is in `note`."""
    train_seconds: float
    """Time in training steps, warm-up included."""
    median_step_seconds: float
    evaluation_seconds: float
    evaluation_tokens_per_second: float | None
    setup_seconds: float
    """Attaching, compiling and everything else before the first step of this run."""
    total_seconds: float
    peak_memory_bytes: int
    """Peak over the training steps: resident set on a processor, allocated memory on a GPU."""
    peak_reserved_bytes: int | None = None
    """What torch had taken from an NVIDIA GPU for it; null elsewhere."""
    base_bytes: int | None = None
    """Of the base's weights as they are held, by Transformers' own count; null in earlier records."""
    note: str = ""


class GpuFacts(Facts):
    """What an NVIDIA GPU ran with; null what could not be found out."""

    driver: str | None
    clock_mhz: int | None
    """Of its processors when the run had trained its last step."""
    cuda: str | None
    cudnn: int | None
    triton: str | None


class Environment(Facts):
    """Where it ran. Never part of a run's identity."""

    hostname_sha256: str
    device: str
    device_name: str
    num_devices: int
    worker: str = ""
    """Which of the workers that did the experiment together did this run; empty where there was but one."""
    gpu: GpuFacts | None = None
    """Null elsewhere than on an NVIDIA GPU."""
    processor: str
    num_cores: int
    memory_bytes: int
    operating_system: str
    python_version: str
    packages: dict[str, str]
    lorabench_version: str
    code_sha256: str
    """Of the code that makes numbers, C++ included (`provenance.NUMBER_ROOMS`); until schema 1 of all Python files."""
    git_commit: str | None
    git_dirty: bool | None
    command: str


class RunRecord(Facts):
    """One run, whatever became of it."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: Status
    status_reason: str | None = None
    environment_failed: bool = False
    """It failed for lack of disk, network or its folder: the same command goes on with it, as if it was cancelled."""
    attempt: int = 1
    num_resumed: int = 0
    """How often it was taken up again from a checkpoint."""
    num_skipped_steps: int = 0
    """Steps in fp16 whose gradients overflowed: they left the adapter as it was."""
    experiment: str
    question: str = ""
    spec: RunSpec
    references: dict[str, str] = Field(default_factory=dict)
    """What the experiment called `model`, `dataset` and `also_on:<name>` where that is a path, and `text_field`."""
    model: ModelFacts | None = None
    dataset: DatasetFacts | None = None
    conversations: ConversationFacts | None = None
    """Null where the corpus is plain text."""
    adapter: AdapterFacts | None = None
    budget: Budget | None = None
    base_validation: Scores | None = None
    base_test: Scores | None = None
    validation: Scores | None = None
    test: Scores | None = None
    num_test_scorings: int = 0
    """More than one means that somebody asked for test again (`--again`); shown for ever."""
    evaluations: tuple[Evaluation, ...] = ()
    search: SearchSettings | None = None
    """Of the experiment that found or left it; null where every run was trained to its end."""
    rungs: tuple[Rung, ...] = ()
    last_training_loss: float | None = None
    """Smoothed training loss at the last step, nats per token."""
    best_step: int | None = None
    """The step whose validation bits per byte was lowest; the adapter kept is the last one."""
    drift: tuple[Drift, ...] = ()
    samples: tuple[Sample, ...] = ()
    sampling: Sampling | None = None
    """Null where no samples were written."""
    tasks: tuple[TaskResult, ...] = ()
    answers: tuple[Answers, ...] = ()
    """By split; none where nothing was generated."""
    speed: Speed | None = None
    environment: Environment
    notes: tuple[str, ...] = ()
    """Things a reader should know: a retry at half the micro-batch, an unpinned revision, …"""
    started_at: str
    finished_at: str | None = None
    """ISO 8601, UTC."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the run folder's other files, by relative path."""

    @property
    def goes_on(self) -> bool:
        """Whether the same command takes the run up where it stopped."""
        return self.status is Status.CANCELLED or self.environment_failed

    @property
    def test_documents(self) -> str:
        """Which of `files` holds test's per-document results: whoever scores test again writes a file of a new name."""
        again = name_of_test_documents(self.num_test_scorings)
        return again if again in self.files else "documents/test.parquet"

    def answers_of(self, split: str) -> Answers | None:
        """What was answered of a split."""
        return next((answers for answers in self.answers if answers.split == split), None)

    @property
    def best_validation(self) -> Evaluation | None:
        """The evaluation with the lowest validation bits per byte."""
        return min(self.evaluations, key=lambda evaluation: evaluation.validation.bits_per_byte, default=None)


def name_of_test_documents(num_scorings: int) -> str:
    """The file of the second and every later scoring of test, within the run's folder."""
    return f"documents/test@{num_scorings}.parquet"
