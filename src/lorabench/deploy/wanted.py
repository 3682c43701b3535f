"""Which forms are wanted: those that were named, or what can be made here and is not slow."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.core.errors import InputError, LorabenchError, MissingExtraError
from lorabench.core.machine import processor_has_bf16
from lorabench.core.progress import View
from lorabench.deploy.engine import ENGINES
from lorabench.deploy.form import Form, make_form
from lorabench.deploy.subject import Subject

DEFAULT_FORMS = (
    *("adapter", "merged:fp32", "merged:bf16", "merged:nf4", "adapter:nf4", "merged:int8", "adapter:int8"),
    *("onnx:int8", "onnx:int4"),
    *("gguf:BF16", "gguf:Q8_0", "gguf:Q6_K", "gguf:Q5_K_M", "gguf:Q4_K_M", "gguf:Q4_0", "gguf:IQ4_XS"),
)
"""What is measured of a run where nothing is asked for, as far as it can be made, and used without much patience."""
_ON_GPUS = ("torchao:int8", "torchao:fp8")
"""These too, where a GPU was asked for; four bits need a package of torchao's beside it."""
_SLOW_ENGINE = "bitsandbytes"
"""On processors without bfloat16 units it takes many times as long as any other."""


def make_forms(names: Sequence[str], device: str) -> list[Form]:
    """The forms of these names, each once; without names, those of `default_forms`. Raises InputError."""
    return list({form.name: form for form in map(make_form, names or default_forms(device))}.values())


def default_forms(device: str) -> list[str]:
    """What is measured where nothing is asked for: of the usual ones those that are installed and not slow there."""
    names = _usual(device)
    missing = {name for forms in _missing(names, device).values() for name in forms}
    return [name for name in names if name not in missing and not _is_slow(make_form(name), device)]


def not_installed(names: Sequence[str], device: str) -> list[str]:
    """Sentences on the named forms, or the usual ones, that are not measured, and what to do to have them."""
    missing = _missing(names or _usual(device), device)
    told = [f"{', '.join(forms)} cannot be measured here: {reason}" for reason, forms in missing.items()]
    unavailable = {name for forms in missing.values() for name in forms}
    slow = [name for name in DEFAULT_FORMS if name not in unavailable and _is_slow(make_form(name), device)]
    if slow and not names:
        told.append(
            f"{', '.join(slow)} are left out: {_SLOW_ENGINE} is slow on processors without bfloat16 units; to have "
            "them measured, name them among the forms"
        )
    return told


def _usual(device: str) -> tuple[str, ...]:
    return DEFAULT_FORMS if device == "cpu" else (*DEFAULT_FORMS, *_ON_GPUS)


def _is_slow(form: Form, device: str) -> bool:
    return form.engine == _SLOW_ENGINE and device == "cpu" and not processor_has_bf16()


def _missing(names: Sequence[str], device: str) -> dict[str, list[str]]:
    """Names of forms by what is missing for them."""
    missing: dict[str, list[str]] = {}
    for form in map(make_form, names):
        engine = ENGINES.get(form.engine)
        try:
            engine.check_device(device)
            engine.require()
        except (MissingExtraError, InputError) as error:
            missing.setdefault(str(error), []).append(form.name)
    return missing


def possible_forms(forms: Sequence[Form], subject: Subject, view: View) -> list[Form]:
    """Those that can be made of the run; of the others it is said why, once for each reason."""
    possible, refused = [], dict[str, list[str]]()
    for form in forms:
        try:
            form.check(subject)
        except LorabenchError as problem:
            refused.setdefault(str(problem), []).append(form.name)
        else:
            possible.append(form)
    for reason, names in refused.items():
        view.message(f"{', '.join(names)} cannot be made: {reason}")
    return possible
