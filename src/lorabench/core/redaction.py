"""Keeps keys and passwords out of everything that is written or printed, wherever a text came from."""

from __future__ import annotations

import os
import re
import urllib.parse

HIDDEN = "***"
MIN_SECRET_LENGTH = 6
"""Shorter values of a variable called …KEY are settings, and would redact ordinary words."""

_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?_?\d*$", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@'\"]+@")
_KEY_LIKE = re.compile(r"\b(?:[0-9a-fA-F]{32,}|hf_\w{10,}|wandb_v\d_\w{10,}|(?:local-)?[0-9a-zA-Z]{40,})\b")


def without_secrets(text: str) -> str:
    """`text` with the values of secret environment variables, and whatever precedes @ in an address, redacted."""
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    return _CREDENTIALS.sub(f"{HIDDEN}@", text)


def without_anything_key_like(text: str) -> str:
    """`without_secrets`, and every long hexadecimal or key-like string too: for what a server answers."""
    return _KEY_LIKE.sub(HIDDEN, without_secrets(text))


def _secrets() -> list[str]:
    """Values of secret variables, as they are and as addresses write them; the longest first."""
    found = set()
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name):
            found |= {value, value.strip(), urllib.parse.quote(value), urllib.parse.quote(value, safe="")}
        for credentials in _CREDENTIALS.findall(value):
            found.add(credentials[:-1].rpartition(":")[2])
    return sorted((secret for secret in found if len(secret) >= MIN_SECRET_LENGTH), key=len, reverse=True)
