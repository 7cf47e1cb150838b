"""What Postgres cannot hold, made fit for it.

Models and tools can say anything; Postgres's `text` and `jsonb` hold every character but U+0000
and lone surrogates, and JSON has no NaN or infinity. Only the stores use this, at their edge.
"""

import json
import math
import re

from pydantic import JsonValue

REPLACEMENT = "\ufffd"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable_text(text: str) -> str:
    """The text with U+FFFD in place of each NUL and each lone surrogate."""
    return _UNSTORABLE.sub(REPLACEMENT, text)


def storable_json(value: JsonValue) -> JsonValue:
    """The value with every text made storable, and null in place of NaN and infinities."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {storable_text(key): storable_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [storable_json(item) for item in value]
    return value


def dump_json(value: JsonValue) -> str:
    """JSON text that Postgres accepts as `jsonb`."""
    return json.dumps(storable_json(value), ensure_ascii=False, separators=(",", ":"))
