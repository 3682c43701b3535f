"""The passes of a step on an NVIDIA GPU: few launches, nothing that waits for the processor."""
