"""Base models: finding them, loading them frozen, and estimating what they cost."""
