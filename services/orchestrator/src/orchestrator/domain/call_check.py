"""Check a tool call before it is run, and say to the model what is wrong with it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from orchestrator.domain.conversation import ToolCall, ToolSpec

SHOWN = 200


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """A call's arguments, or in `complaint` a sentence for the model why it cannot be run."""

    arguments: dict[str, object]
    complaint: str = ""


def check_call(call: ToolCall, tools: Sequence[ToolSpec]) -> CheckedCall:
    """Check name and arguments of a call against the tools on offer."""
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        names = ", ".join(sorted(tool.name for tool in tools))
        return CheckedCall({}, f"There is no tool {call.name!r}. The tools are: {names}.")
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return CheckedCall(
            {},
            f"The arguments of {call.name} are not a JSON object: {call.arguments[:SHOWN]!r}. "
            "Write them as one JSON object.",
        )
    error = best_match(_validator(tool.parameters).iter_errors(arguments))
    if error is None:
        return CheckedCall(arguments)
    where = ".".join(str(part) for part in error.absolute_path)
    at = f" at {where!r}" if where else ""
    return CheckedCall({}, f"The arguments of {call.name} do not fit{at}: {error.message[:SHOWN]}")


@lru_cache(maxsize=256)
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema))
