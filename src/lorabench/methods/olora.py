"""OLoRA (Büyükakyüz 2024): LoRA that starts from the orthonormal factors of each weight's QR decomposition.

As with PiSSA, the start is taken out of the weight while it is trained; scored and saved is LoRA of twice the rank.
"""

from __future__ import annotations

from lorabench.methods.pissa import Pissa, PissaAdapter
from lorabench.methods.settings import AdapterSettings
from lorabench.methods.targets import require_untransposed
from lorabench.models.linears import HasLinears


class OloraAdapter(PissaAdapter):
    """PiSSA's, on weights that PEFT writes over."""

    starts_in_place = True


class Olora(Pissa):
    """PiSSA from another decomposition."""

    adapter = OloraAdapter

    def resolve_targets(self, shape: HasLinears, settings: AdapterSettings) -> list[str]:
        """Full paths of the adapted modules; layers that PEFT's decomposition does not take are refused."""
        require_untransposed(shape, settings)
        return super().resolve_targets(shape, settings)


METHOD = Olora(init_lora_weights="olora")
