"""The engine on the far side: one connection a request, answers as a stream."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode

import h11

from orchestrator.errors import EngineUnreachable
from orchestrator.gateway.egress_line import CHUNK_BYTES, Line, next_event

SILENCE_SECONDS = 300.0
MAX_ANSWER_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the engine.

    Args:
        method: The HTTP method.
        path: The path with the version.
        query: The parameters.
        body: A JSON object; None for none.
    """

    method: str
    path: str
    query: Mapping[str, str]
    body: Mapping[str, object] | None = None


class Answer:
    """The engine's answer to one request.

    Args:
        status: The HTTP status.
        content_type: What its body is.
    """

    def __init__(self, status: int, content_type: bytes, state: h11.Connection, line: Line) -> None:
        self.status = status
        self.content_type = content_type
        self._state = state
        self._line = line

    async def parts(self) -> AsyncIterator[bytes]:
        """The body, as it comes.

        Raises:
            EngineUnreachable: It breaks off.
        """
        while True:
            event = await _next(self._state, self._line)
            if isinstance(event, h11.EndOfMessage):
                return
            if not isinstance(event, h11.Data):
                raise EngineUnreachable("The Docker engine broke off its answer.")
            yield bytes(event.data)

    async def json(self) -> object:
        """The body as JSON.

        Raises:
            EngineUnreachable: It is none, or too large.
        """
        text = b""
        async for part in self.parts():
            text += part
            if len(text) > MAX_ANSWER_BYTES:
                raise EngineUnreachable("The Docker engine's answer is too large.")
        try:
            return json.loads(text)
        except ValueError:
            raise EngineUnreachable("The Docker engine's answer is not JSON.") from None


class Engine:
    """A Docker engine on a unix socket.

    Args:
        socket: Where it listens.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    @asynccontextmanager
    async def ask(self, request: Request) -> AsyncIterator[Answer]:
        """Send a request; the answer can be read as long as the context lasts.

        Raises:
            EngineUnreachable: The engine does not answer, or not in HTTP.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(
                str(self._socket), limit=CHUNK_BYTES
            )
        except OSError as error:
            raise EngineUnreachable(
                f"The Docker engine does not answer its proxy ({error.strerror or error})."
            ) from None
        line = Line(reader, writer)
        try:
            yield await _exchange(line, request)
        finally:
            await line.close()

    async def look_up(self, path: str) -> object | None:
        """What the engine says about a thing; None if it has none.

        Raises:
            EngineUnreachable: It does not say.
        """
        async with self.ask(Request("GET", path, {})) as answer:
            said = await answer.json()
            if answer.status == HTTPStatus.NOT_FOUND:
                return None
            if answer.status != HTTPStatus.OK:
                raise EngineUnreachable(f"The Docker engine answers {answer.status} for {path}.")
            return said


async def _exchange(line: Line, request: Request) -> Answer:
    state = h11.Connection(h11.CLIENT)
    body = b"" if request.body is None else json.dumps(request.body).encode()
    target = request.path + (f"?{urlencode(request.query)}" if request.query else "")
    headers = [("Host", "docker"), ("Connection", "close"), ("Content-Length", str(len(body)))]
    if request.body is not None:
        headers.append(("Content-Type", "application/json"))
    head = h11.Request(method=request.method, target=target, headers=headers)
    said = (head, h11.Data(data=body), h11.EndOfMessage())
    try:
        await line.write(b"".join(state.send(each) or b"" for each in said))
    except OSError:
        raise EngineUnreachable("The Docker engine hung up.") from None
    event = await _next(state, line)
    if not isinstance(event, h11.Response):
        raise EngineUnreachable("The Docker engine's answer is not one that was asked for.")
    content_type = dict(event.headers).get(b"content-type", b"application/json")
    return Answer(event.status_code, content_type, state, line)


async def _next(state: h11.Connection, line: Line) -> object:
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await next_event(state, line.read)
    except TimeoutError:
        raise EngineUnreachable("The Docker engine has fallen silent.") from None
    except (OSError, h11.RemoteProtocolError) as error:
        raise EngineUnreachable(f"The Docker engine broke off: {error}.") from None
