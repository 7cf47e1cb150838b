"""Bodies of calls: what may vary is read strictly, and the whole is compared with what we write."""

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.engine_proxy.terms import shown
from orchestrator.errors import EngineCallRefused


class BodyPart(BaseModel):
    """The values of a JSON object that may vary; others are left to the comparison."""

    model_config = ConfigDict(strict=True)


Body = TypeVar("Body", bound=BodyPart)


def read_body(kind: type[Body], asked: Mapping[str, object]) -> Body:
    """What may vary in a body.

    Raises:
        EngineCallRefused: It is missing, or of another form.
    """
    try:
        return kind.model_validate(asked)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise EngineCallRefused(f"{path} cannot be allowed: {first['msg']}.") from None


def require_same(asked: object, wanted: object, what: str) -> None:
    """See that a body is the one that the orchestrator would send.

    Raises:
        EngineCallRefused: It is not; the first difference is named.
    """
    difference = first_difference(asked, wanted)
    if difference is not None:
        raise EngineCallRefused(f"{what}: {difference}.")


def first_difference(asked: object, wanted: object, path: str = "") -> str | None:
    """Where a JSON value is not the one that is wanted, in words; None if it is the same."""
    if isinstance(asked, Mapping) and isinstance(wanted, Mapping):
        return _difference_of_objects(asked, wanted, path)
    if isinstance(asked, list) and isinstance(wanted, list) and len(asked) == len(wanted):
        for number, (each, other) in enumerate(zip(asked, wanted, strict=True)):
            found = first_difference(each, other, f"{path}[{number}]")
            if found is not None:
                return found
        return None
    if type(asked) is type(wanted) and asked == wanted:
        return None
    return f"{path} is {shown(asked)} and must be {json.dumps(wanted)}"


def _difference_of_objects(
    asked: Mapping[str, object], wanted: Mapping[str, object], path: str
) -> str | None:
    for name, value in asked.items():
        inner = f"{path}.{name}" if path else name
        if name not in wanted:
            return f"{shown(inner)} is never asked for by the orchestrator"
        found = first_difference(value, wanted[name], inner)
        if found is not None:
            return found
    missing = next((name for name in wanted if name not in asked), None)
    return None if missing is None else f"{path}.{missing}".removeprefix(".") + " is missing"
