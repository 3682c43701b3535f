"""The fast path: a frozen base with LoRA adapters computed on flattened tokens, without padding or stored logits."""
