"""Any of PEFT's adapters, by the values of its configuration: what has no file of its own here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from lorabench.core.canonical import canonical
from lorabench.core.errors import ConfigError, near_matches
from lorabench.methods.adapter import Adapter
from lorabench.methods.any_peft import AnyPeftAdapter
from lorabench.methods.lora_settings import matched
from lorabench.methods.method import Method
from lorabench.methods.quick_patterns import require_quick
from lorabench.methods.saved import NOT_READ, problem_with
from lorabench.methods.settings import AdapterSettings
from lorabench.methods.targets import require_files, resolve_targets
from lorabench.models.linears import HasLinears

if TYPE_CHECKING:
    from lorabench.models.base import FrozenBase

_SET_HERE = ("task_type", "inference_mode", "base_model_name_or_path", "revision")
_STARTS = (
    "of the base's weights or of the text: such a start is a method of its own (pissa, olora, loftq, eva), or not there"
)
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga", "eva")


class PeftSettings(AdapterSettings):
    """The setting of the method `peft`."""

    config: dict[str, Any] = Field(default_factory=dict)
    """`peft_type`, and the values of its configuration in PEFT; `target_modules` holds where they name none."""

    @field_validator("config")
    @classmethod
    def _check(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("peft_type"), str):
            raise ValueError("should hold peft_type, such as {peft_type: LOHA, r: 8}")
        canonical(value)
        return value


class AnyPeft(Method):
    """What is trained and where is asked of PEFT itself, on the model without its weights."""

    settings = PeftSettings
    unused_settings = frozenset({"rank", "alpha", "dropout"})
    is_fast = False
    reference_bytes = 10

    def short_name(self, settings: AdapterSettings) -> str:
        """`peft-loha`."""
        return f"peft-{_values(settings)['peft_type'].lower()}"

    def num_virtual_tokens(self, settings: AdapterSettings) -> int:
        """As the configuration says."""
        return int(_values(settings).get("num_virtual_tokens") or 0)

    def resolve_targets(self, shape: HasLinears, settings: AdapterSettings) -> list[str]:
        """Full paths of the modules that PEFT puts an adapter on."""
        return self._tried(shape, settings)[0]

    def count_trainable(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """As PEFT counts them."""
        return self._tried(shape, settings)[1]

    def count_saved(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """As PEFT would write them."""
        return self._tried(shape, settings)[2]

    def attach(self, base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
        """Put PEFT's model around the base."""
        from lorabench.models.loaded import LoadedLinears

        shape = LoadedLinears(base.model)
        targets, num_trainable, _ = self._tried(shape, settings)
        config = make_config(shape, settings)
        return AnyPeftAdapter(base, settings, config, seed=seed, planned=(targets, num_trainable))

    def _tried(self, shape: HasLinears, settings: AdapterSettings) -> tuple[list[str], int, int]:
        """Modules that carry an adapter, trainable parameters, and those that are saved."""
        import torch
        from peft import get_peft_model, get_peft_model_state_dict
        from peft.tuners.tuners_utils import BaseTunerLayer
        from transformers import AutoConfig, AutoModelForCausalLM

        known = dict(require_files(shape.config, settings))
        config = make_config(shape, settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(AutoConfig.for_model(known.pop("model_type"), **known))
            model.requires_grad_(False)
            _require_sensible(model, _values(settings))
            try:
                tried: Any = get_peft_model(model, config)
                saved = get_peft_model_state_dict(tried, save_embedding_layers=False)
            except Exception as error:  # PEFT raises whatever a strange configuration makes it meet
                message = " ".join(str(error).split())[:300]
                raise ConfigError(
                    f"adapter.config: PEFT cannot attach it: {message or type(error).__name__}; correct what it names"
                ) from None
        paths = [path for path, module in tried.get_base_model().named_modules() if isinstance(module, BaseTunerLayer)]
        for key in ("rank_pattern", "alpha_pattern"):
            matched(f"config.{key}", _values(settings).get(key) or {}, paths)
        num_trainable = sum(weight.numel() for weight in tried.parameters() if weight.requires_grad)
        return paths, num_trainable, sum(tensor.numel() for tensor in saved.values())


def make_config(shape: HasLinears, settings: AdapterSettings) -> Any:
    """PEFT's configuration. Raises ConfigError for one that PEFT does not know, or that no adapter here may have."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    values = dict(_values(settings))
    kind = values.pop("peft_type").upper()
    kinds = {known.value: config for known, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind not in kinds:
        raise ConfigError(f"adapter.config: PEFT has no peft_type {kind[:80]!r}.{near_matches(kind, kinds)}")
    if kind in NOT_READ:
        raise ConfigError(f"adapter.config: {kind} is not trained here: {NOT_READ[kind]}")
    if kind == "ADALORA":
        raise ConfigError(
            "adapter.config: ADALORA cuts ranks along the run, by a method of its own: give method: adalora"
        )
    if problem := problem_with(values):
        raise ConfigError(f"adapter.config: {problem}")
    if values.get("layer_replication"):
        raise ConfigError(
            "adapter.config: layer_replication repeats layers of the base, so that another model than the named one "
            "would be trained and scored; leave it out"
        )
    start = values.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise ConfigError(f"adapter.config: init_lora_weights {start[:80]!r} is made {_STARTS}")
    for key in values:
        if key in _SET_HERE:
            raise ConfigError(f"adapter.config: {key} is set by lorabench; leave it out")
        if key not in kinds[kind].__dataclass_fields__:
            raise ConfigError(
                f"adapter.config: {str(key)[:80]!r} is not a value to be set of {kind}."
                f"{near_matches(str(key), kinds[kind].__dataclass_fields__)}"
            )
    fields = kinds[kind].__dataclass_fields__
    if "target_modules" in fields and "target_modules" not in values and kind not in ("LN_TUNING", "TRAINABLE_TOKENS"):
        values["target_modules"] = resolve_targets(shape, settings.target_modules)
    if "fan_in_fan_out" in fields:
        values.setdefault("fan_in_fan_out", shape.transposed)
    try:
        return kinds[kind](task_type="CAUSAL_LM", **values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"adapter.config: {' '.join(str(error).split())[:300]}") from None


def _require_sensible(model: Any, values: Mapping[str, Any]) -> None:
    """Raise ConfigError for what PEFT would leave out without a word, and for patterns that take for ever."""
    for key in ("target_modules", "exclude_modules"):
        if isinstance(values.get(key), str):
            require_quick(f"adapter.config.{key}", [values[key]], [name for name, _ in model.named_modules()])
    names = [name for name, _ in model.named_parameters()]
    for wanted in values.get("target_parameters") or ():
        if not any(name == wanted or name.endswith(f".{wanted}") for name in names):
            raise ConfigError(
                f"adapter.config: target_parameters {str(wanted)[:80]!r} is no parameter of the model; give the end of "
                f"the name of one, such as {names[-1]}"
            )


def _values(settings: AdapterSettings) -> Mapping[str, Any]:
    assert isinstance(settings, PeftSettings)
    return settings.config


METHOD = AnyPeft()
