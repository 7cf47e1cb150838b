"""A call to the engine as it was made, read so that it can mean one thing only."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from orchestrator.errors import EngineCallInvalid, EngineCallRefused

OLDEST_VERSION = 41
"""Of the engine's interface 1.x. Older ones read some fields and calls in other ways."""

_TARGET = re.compile(
    r"(?:/v1\.(?P<minor>[1-9][0-9]{0,2}))?(?P<path>(?:/[A-Za-z0-9_.:@-]+)+)(?:\?(?P<query>[^#]*))?"
)


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of the engine.

    Args:
        method: The HTTP method.
        version: The prefix that names the interface's version, such as `/v1.41`; or nothing.
        path: The rest: nothing in it is encoded, and no segment is empty or of dots only.
        query: The parameters, each given once.
        body: What was sent with it.
    """

    method: str
    version: str
    path: str
    query: Mapping[str, str]
    body: bytes = b""


def read_call(method: bytes, target: bytes, body: bytes = b"") -> Call:
    """Read a call.

    Args:
        method: As it stands in the request.
        target: As it stands in the request.
        body: The whole body.

    Raises:
        EngineCallRefused: It is written in a way that could be read differently elsewhere.
    """
    # The one character that clients encode without need: it stands in images' names.
    text = target.decode("latin-1").replace("%40", "@")
    found = _TARGET.fullmatch(text)
    if found is None or any(set(part) == {"."} for part in found["path"].split("/") if part):
        raise EngineCallRefused(
            "Targets are plain paths of the engine's interface: without a host, without encoded, "
            "empty or dot segments."
        )
    minor = found["minor"]
    if minor is not None and int(minor) < OLDEST_VERSION:
        raise EngineCallRefused(f"Version 1.{minor} of the interface is older than 1.41.")
    return Call(
        method=method.decode("latin-1"),
        version="" if minor is None else f"/v1.{minor}",
        path=found["path"],
        query=_read_query(found["query"] or ""),
        body=body,
    )


def read_object(text: bytes | str) -> Mapping[str, object]:
    """Read a JSON object in which no name occurs twice.

    Raises:
        EngineCallInvalid: It is not one.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise EngineCallInvalid(f"This is not a JSON object: {error}.") from None
    if not isinstance(value, dict):
        raise EngineCallInvalid("This is not a JSON object.")
    return value


def _read_query(text: str) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        if not text:
            return {}
        raise EngineCallRefused("The query cannot be read.") from None
    if len({name for name, _ in pairs}) < len(pairs):
        raise EngineCallRefused("A parameter is given twice.")
    return dict(pairs)


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")
