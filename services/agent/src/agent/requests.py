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
from agent.records import COMMIT, PlacedFile, Start
from agent.way_out import Pass

MAX_CLAIM_BYTES = 4 * 1024
MAX_PASS_BYTES = 64 * 1024
MAX_PREPARE_BYTES = 256 * 1024 * 1024
MAX_OUTPUT_BYTES = 128 * 1024 * 1024
MAX_STEP_DIGITS = 9
MAX_COMMITS_BYTES = 4 * 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """What `POST /prepare` asks for."""

    task: str
    start: tuple[Start, ...]
    files: tuple[PlacedFile, ...]
    install: bool


@dataclass(frozen=True, slots=True)
class ContinueRequest:
    """What `POST /continue` asks for."""

    task: str
    earlier: str
    files: tuple[PlacedFile, ...]


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """What `POST /fork` asks for."""

    task: str
    parent: str
    step: int


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """What `POST /tasks/{task}/bundles/{name}` asks for: commits, without those of the receiver."""

    tips: tuple[str, ...]
    without: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What `POST /tasks/{task}/restore` asks for: state commits by repository."""

    key: str
    states: dict[str, str]


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
        _name(body, "task"),
        _items(body, "start", lambda each: Start(_field(each, "name", str), _commit(each))),
        _files(body),
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


async def read_continue(request: Request) -> ContinueRequest:
    """The body of `POST /continue`.

    Raises:
        BadRequest: A field is missing or of a wrong type.
    """
    body = _object(await read_body(request, MAX_PREPARE_BYTES))
    return ContinueRequest(_name(body, "task"), _name(body, "earlier"), _files(body))


async def read_fork(request: Request) -> ForkRequest:
    """The body of `POST /fork`.

    Raises:
        BadRequest: A field is missing or of a wrong type.
    """
    body = _object(await read_body(request, MAX_CLAIM_BYTES))
    return ForkRequest(_name(body, "task"), _name(body, "parent"), _field(body, "step", int))


def read_step(request: Request, name: str) -> int | None:
    """The number of a step in the query; None if it is not there.

    Raises:
        BadRequest: It is no number.
    """
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > MAX_STEP_DIGITS:
        raise BadRequest(f"{name} must be the number of a step")
    return int(text)


def _name(body: dict[str, object], name: str) -> str:
    return checked_name(_field(body, name, str))


def _files(body: dict[str, object]) -> tuple[PlacedFile, ...]:
    return _items(body, "files", lambda each: PlacedFile(_field(each, "name", str), _content(each)))


async def read_bundle_request(request: Request) -> BundleRequest:
    """The body of `POST /tasks/{task}/bundles/{name}`.

    Raises:
        BadRequest: A field is missing, of a wrong type, or no commit.
    """
    body = _object(await read_body(request, MAX_COMMITS_BYTES))
    tips, without = (_commits(body, name) for name in ("tips", "without"))
    if not tips:
        raise BadRequest("a bundle brings at least one commit")
    return BundleRequest(tips, without)


async def read_restore_request(request: Request) -> RestoreRequest:
    """The body of `POST /tasks/{task}/restore`.

    Raises:
        BadRequest: A field is missing, of a wrong type, or no commit.
    """
    body = _object(await read_body(request, MAX_COMMITS_BYTES))
    states = _items(body, "states", lambda each: (_field(each, "name", str), _commit(each)))
    for _, commit in states:
        _checked_commit(commit)
    return RestoreRequest(checked_name(_field(body, "key", str)), dict(states))


def _commits(body: dict[str, object], name: str) -> tuple[str, ...]:
    listed = _field(body, name, list)
    return tuple(_checked_commit(_checked(each, str, f"an item of {name}")) for each in listed)


def _checked_commit(commit: str) -> str:
    if not COMMIT.fullmatch(commit):
        raise BadRequest(f"not a commit: {commit[:64]!r}")
    return commit


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
