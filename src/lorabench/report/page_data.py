"""Values for the page's own script, as JSON that is safe inside a script element."""

from __future__ import annotations

import json


def script_json(value: object) -> str:
    """JSON for the inside of a script element, whatever texts it holds: ASCII without `<`, `>` and `&`."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
