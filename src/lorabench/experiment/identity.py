"""What a run *is*: a hash of its scientific configuration and of the pinned things it uses, apart from where it runs.

Two runs with one id would measure the same thing; a canonical form that refuses what it cannot write keeps it so. Only
what differs from the defaults is hashed, so that a setting that is added later renames no run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lorabench.core.canonical import canonical, fingerprint
from lorabench.core.settings import Frozen
from lorabench.experiment.schema import RunSpec
from lorabench.methods.registry import method_of
from lorabench.methods.settings import AdapterSettings

SCIENCE_VERSION = 1
"""Raised when the meaning of a number changes (protocol, packing, initialisation): old runs are then other runs."""

LEFT_OUT: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "adapter": {"method": "lora", "rank": 16, "alpha": "2r", "dropout": 0.0, "target_modules": "all-linear"},
        "training": {
            "learning_rate": 3e-4,
            "batch_size": 16,
            "micro_batch_size": None,
            "context_length": 512,
            "train_bytes": 2_000_000,
            "epochs": 1,
            "optimizer": "adamw",
            "schedule": "cosine",
            "warmup_ratio": 0.05,
            "decay_ratio": 0.2,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
        },
        "evaluation": {"validation_bytes": 200_000, "test_bytes": 200_000, "times": 4, "stride": None},
        "": {"quantization": "none"},
    }
)
"""By section of the specification: the value of each setting that is left out of the hash. Never edit a value.

They are the defaults of the day on which a setting appeared, and stay what they are when a default is changed in
`experiment.schema`: a run of the new default is then written out, and one of the old default keeps its id. So a changed
default renames no run, gives no two different runs one id, and asks for no new SCIENCE_VERSION. A new setting is added
here with the value that means what was done before it existed; a test refuses a setting that is not. What is not here
is left out while it has its default in `lorabench.experiment.schema`. `training.precision` is never left out.
"""
_ALWAYS_HASHED = frozenset({("training", "precision")})


@dataclass(frozen=True)
class BaseVariant:
    """Which base, and how it is loaded: part of every key by which a loaded base or its scores are found again."""

    model: str
    """The name, which means one revision within an experiment."""
    revision: str
    precision: str
    quantization: str = "none"

    @classmethod
    def of(cls, spec: RunSpec) -> BaseVariant:
        """The base that a run starts from."""
        return cls(spec.model, spec.model_revision, spec.training.precision, spec.quantization)

    @property
    def loading(self) -> str:
        """How it is loaded, whichever base it is: `bf16`, or `bf16-nf4` where it is quantised."""
        return loading_name(self.precision, self.quantization)


def loading_name(precision: str, quantization: str) -> str:
    """Precision and quantisation in one word, for keys that do not name the model."""
    return precision if quantization == "none" else f"{precision}-{quantization}"


def run_id(spec: RunSpec) -> str:
    """A readable name and ten hex digits of the fingerprint; safe as a file name.

    The spec must be resolved: revisions known, precision chosen.
    """
    if spec.training.precision == "auto":
        raise ValueError("the precision must be chosen before a run has an identity")
    digest = fingerprint({"science": SCIENCE_VERSION, "spec": meaning_of(spec)})[:10]
    adapter, training = spec.adapter, spec.training
    method = method_of(adapter).short_name(adapter)
    readable = f"{spec.model}_{spec.dataset}_{method}-lr{training.learning_rate:g}-s{spec.seed}"
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', readable).strip('.-')[:120]}_{digest}"


def meaning_of(spec: RunSpec) -> dict[str, Any]:
    """What of a specification differs from `LEFT_OUT`, each thing that is meant written in one way.

    What method and schedule do not use means nothing; an alpha of `2r` and its number are one; modules are a set; a
    stride of a whole window is none; a micro-batch is at most the batch.
    """
    values = _differing(spec, "")
    training, evaluation = values.get("training", {}), values.get("evaluation", {})
    values["adapter"] = _adapter_meaning(spec.adapter, values.get("adapter", {}))
    if spec.training.micro_batch_size is not None:
        training["micro_batch_size"] = min(spec.training.micro_batch_size, spec.training.batch_size)
    if spec.training.optimizer == "schedule-free":
        training.pop("schedule", None)
    if spec.training.schedule != "wsd" or spec.training.optimizer == "schedule-free":
        training.pop("decay_ratio", None)
    if spec.evaluation.stride is not None and spec.evaluation.stride >= spec.training.context_length:
        del evaluation["stride"]
    return {name: value for name, value in values.items() if value != {}}


def configuration_of(spec: RunSpec) -> str:
    """A fingerprint of all that is trained but the seed: runs that share it are repetitions of one configuration."""
    values = meaning_of(spec)
    return fingerprint({name: value for name, value in values.items() if name not in ("seed", "evaluation")})


def _adapter_meaning(settings: AdapterSettings, values: Mapping[str, Any]) -> dict[str, Any]:
    method = method_of(settings)
    meant = {name: value for name, value in values.items() if name != "alpha" and method.uses(name)}
    if method.uses("alpha") and settings.alpha_value != 2 * settings.rank:
        meant["alpha"] = settings.alpha_value
    for name in meant.keys() & {"target_modules", "modules_to_save"}:
        meant[name] = sorted(set(meant[name].split(",")))
    return meant


def _differing(settings: Frozen, section: str) -> dict[str, Any]:
    """The settings of a section (and of those within it) whose value is not the one that is left out."""
    found = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Frozen):
            if inner := _differing(value, name):
                found[name] = inner
            continue
        left_out = LEFT_OUT.get(section, {})
        known = name in left_out or not field.is_required()
        default = left_out[name] if name in left_out else field.get_default(call_default_factory=True)
        if (section, name) in _ALWAYS_HASHED or not known or canonical(value) != canonical(default):
            found[name] = value
    return found
