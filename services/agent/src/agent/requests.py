"""Read what callers send: bodies of a bounded size, with the fields they must have."""

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from agent.errors import BadRequest, TooLarge
from agent.layout import checked_name
from agent.records import PlacedFile, Start
from agent.way_out import Pass

MAX_CLAIM_BYTES = 4 * 1024
MAX_PASS_BYTES = 64 * 1024
MAX_PREPARE_BYTES = 256 * 1024 * 1024
MAX_OUTPUT_BYTES = 128 * 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """What `POST /prepare` asks for."""

    task: str
    start: tuple[Start, ...]
    files: tuple[PlacedFile, ...]
    install: bool


async def read_body(request: Request, limit: int) -> bytes:
    """The body of a request.

    Raises:
        TooLarge: It has more than `limit` bytes.
        BadRequest: The caller went away before its end.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise TooLarge(f"a body has at most {limit} bytes")
    except ClientDisconnect:
        raise BadRequest("the body was cut off") from None
    return bytes(body)


async def read_key(request: Request) -> str:
    """The key that `POST /claim` brings.

    Raises:
        BadRequest: There is none.
    """
    return _field(_object(await read_body(request, MAX_CLAIM_BYTES)), "key", str)


async def read_prepare(request: Request) -> PrepareRequest:
    """The body of `POST /prepare`.

    Raises:
        BadRequest: A field is missing or of a wrong type.
    """
    body = _object(await read_body(request, MAX_PREPARE_BYTES))
    return PrepareRequest(
        checked_name(_field(body, "task", str)),
        _items(body, "start", lambda each: Start(_field(each, "name", str), _commit(each))),
        _items(body, "files", lambda each: PlacedFile(_field(each, "name", str), _content(each))),
        _field(body, "install", bool) if "install" in body else False,
    )


async def read_pass(request: Request) -> Pass:
    """The body of `PUT /tasks/{id}/pass`.

    Raises:
        BadRequest: A field is missing or of a wrong type.
    """
    body = _object(await read_body(request, MAX_PASS_BYTES))
    variables = _field(body, "variables", dict)
    return Pass(
        _field(body, "user", str),
        _field(body, "password", str),
        {str(name): _checked(value, str, "a variable") for name, value in variables.items()},
    )


def _object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    return _checked(value, dict, "the body")


def _field(body: dict[str, object], name: str, kind: type[T]) -> T:
    if name not in body:
        raise BadRequest(f"{name} is missing")
    return _checked(body[name], kind, name)


def _items(
    body: dict[str, object], name: str, read: Callable[[dict[str, object]], T]
) -> tuple[T, ...]:
    items = _field(body, name, list)
    return tuple(read(_checked(each, dict, f"an item of {name}")) for each in items)


def _commit(body: dict[str, object]) -> str:
    return _field(body, "commit", str)


def _content(body: dict[str, object]) -> bytes:
    try:
        return base64.b64decode(_field(body, "content", str), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("the content of a file is not base64") from None


def _checked(value: object, kind: type[T], what: str) -> T:
    if not isinstance(value, kind):
        raise BadRequest(f"{what} must be of type {kind.__name__}")
    return value
