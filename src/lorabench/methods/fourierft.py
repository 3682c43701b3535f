"""FourierFT (Gao et al. 2024): a few trained entries, at random places, of the change's two-dimensional spectrum."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings


class FourierftSettings(AdapterSettings):
    """FourierFT's own settings."""

    num_frequencies: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    """Trained entries of each layer."""
    scaling: Annotated[float, Field(gt=0.0, le=1e6)] = 150.0


class Fourierft(OnLinears):
    """One vector for each layer."""

    settings = FourierftSettings
    matrix_bytes = (8, 72)
    unused_settings = frozenset({"rank", "alpha", "dropout"})

    def problem_with(self, settings: AdapterSettings, inputs: int, outputs: int) -> str:
        """Each entry is a place of its own."""
        count = _own(settings).num_frequencies
        return f"num_frequencies {count} is to be at most inputs times outputs" if count > inputs * outputs else ""

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """The entries."""
        return _own(settings).num_frequencies

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's FourierFTConfig."""
        from peft import FourierFTConfig

        own = _own(settings)
        return FourierFTConfig(
            n_frequency=own.num_frequencies,
            scaling=own.scaling,
            random_loc_seed=seed,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )


def _own(settings: AdapterSettings) -> FourierftSettings:
    assert isinstance(settings, FourierftSettings)
    return settings


METHOD = Fourierft()
