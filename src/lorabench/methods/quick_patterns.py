"""Regular expressions for names of modules, tried where they can be stopped: some take for ever on a near match."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable
from functools import cache

from lorabench.core.errors import ConfigError

MAX_SECONDS = 1
"""Of processor time, for all names of a model."""
_PLAIN = re.compile(r"[\w.\-]*(\.\*)?[\w.\-]*")
"""At most one repeat: steps grow no faster than the square of a name's length."""
_TRY = """
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]),) * 2)
pattern, names = json.load(sys.stdin)
compiled = re.compile(pattern)
for name in names:
    compiled.match(name)
"""


def require_quick(setting: str, patterns: Iterable[str], names: Collection[str]) -> None:
    """Raise ConfigError for a pattern that is not through with all names within `MAX_SECONDS`.

    Patterns are put behind the beginning of a path, as PEFT does it.
    """
    for pattern in patterns:
        if not _PLAIN.fullmatch(pattern) and not _is_quick(rf"(.*\.)?({pattern})$", tuple(names)):
            raise ConfigError(
                f"{setting}: {pattern[:80]!r} takes more than {MAX_SECONDS} s of processor time on the model's module "
                "names; give one without repeats inside repeats, such as (q|k)_proj"
            )


@cache
def _is_quick(pattern: str, names: tuple[str, ...]) -> bool:
    command = [sys.executable, "-I", "-S", "-c", _TRY, str(MAX_SECONDS)]
    done = subprocess.run(command, input=json.dumps([pattern, names]), text=True, capture_output=True, check=False)
    return done.returncode not in (-signal.SIGKILL, -signal.SIGXCPU)
