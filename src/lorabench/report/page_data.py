"""Values for the page's own script, as JSON that is safe inside a script element."""

from __future__ import annotations

import json
import math


def script_json(value: object) -> str:
    """JSON for the inside of a script element, whatever texts it holds: ASCII without `<`, `>` and `&`."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def short(value: object) -> float | int | None:
    """Six significant digits: more than any screen shows. None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}")
