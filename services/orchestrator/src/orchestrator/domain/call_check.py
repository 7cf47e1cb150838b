"""Check a tool call before it is run, and say to the model what is wrong with it."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, UnknownType, ValidationError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from orchestrator.domain.conversation import ToolCall, ToolSpec

SHOWN = 200
MAX_DEPTH = 64
MAX_ARGUMENTS = 1_000_000
"""Most characters of a call's arguments; what a tool server takes is a little more."""

# A schema is outside input: what is wrong with it shows as whatever the validator trips over.
_UNUSABLE = (
    SchemaError,
    UnknownType,
    Unresolvable,
    re.error,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """A call's arguments, or in `complaint` a sentence for the model why it cannot be run."""

    arguments: dict[str, object]
    complaint: str = ""


def check_call(call: ToolCall, tools: Sequence[ToolSpec]) -> CheckedCall:
    """Check name and arguments of a call against the tools on offer.

    A tool whose schema is broken is not the model's fault: its arguments are then left for the
    tool's own server to judge.
    """
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        names = ", ".join(sorted(tool.name for tool in tools))
        return CheckedCall({}, f"There is no tool {call.name[:SHOWN]!r}. The tools are: {names}.")
    if len(call.arguments) > MAX_ARGUMENTS:
        return CheckedCall(
            {},
            f"The arguments of {call.name} have {len(call.arguments):,} characters; at most "
            f"{MAX_ARGUMENTS:,} are taken. Do it in smaller parts.",
        )
    try:
        arguments = _read_arguments(call.arguments)
    except (TypeError, ValueError) as error:
        return CheckedCall(
            {},
            f"The arguments of {call.name} are not a JSON object ({str(error)[:SHOWN]}): "
            f"{call.arguments[:SHOWN]!r}. Write them as one JSON object.",
        )
    misfit = _misfit(arguments, tool.parameters)
    if misfit is None:
        return CheckedCall(arguments)
    where = ".".join(str(part) for part in misfit.absolute_path)[:SHOWN]
    at = f" at {where!r}" if where else ""
    return CheckedCall({}, f"The arguments of {call.name} do not fit{at}: {misfit.message[:SHOWN]}")


def _read_arguments(text: str) -> dict[str, object]:
    """The arguments in a JSON text; strict, since what is read here is sent on as JSON.

    Raises:
        TypeError: The text is JSON of another type.
        ValueError: It is not JSON that every reader takes the same way.
    """
    try:
        value = json.loads(text.strip() or "{}", object_pairs_hook=_distinct)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise TypeError(f"it is of another type: {type(value).__name__}")
    _require_shallow(value)
    # NaN, infinities and lone surrogates are read, but cannot be written as JSON.
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it has one half of a surrogate pair without the other") from None
    return value


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is given twice")
    return found


def _require_shallow(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _items(outer)]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _items(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _misfit(arguments: dict[str, object], schema: str) -> ValidationError | None:
    try:
        found: ValidationError | None = best_match(_validator(schema).iter_errors(arguments))
    except _UNUSABLE:
        return None
    return found


@lru_cache(maxsize=256)
def _validator(schema: str) -> Draft202012Validator:
    parsed = json.loads(schema)
    Draft202012Validator.check_schema(parsed)
    # An empty registry: else a `$ref` in a server's schema would be fetched from the network.
    return Draft202012Validator(parsed, registry=Registry())
