"""Chooses the profile that fits this machine; `python -m lorabench.cli.profile` prints its name, and why to stderr."""

from __future__ import annotations

import sys

from lorabench.cli.commands.doctor import hub_is_reachable
from lorabench.core.device import choose_device


def choose_profile() -> tuple[str, str]:
    """The profile's name and the reason for it."""
    device = choose_device()
    if not device.is_gpu:
        return "local", device.note or "there is no GPU here"
    if not hub_is_reachable():
        return "local", "there is a GPU, but the hub cannot be reached"
    return "full", "there is a GPU and the hub can be reached"


if __name__ == "__main__":
    name, reason = choose_profile()
    print(f"Profile: {name} ({reason})", file=sys.stderr)
    print(name)
