"""One connection to the proxy: one call is read, judged, carried out, and answered."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import h11
import structlog

from orchestrator.engine_proxy.call import Call, read_call
from orchestrator.engine_proxy.engine import Answer, Engine
from orchestrator.engine_proxy.guard import Guard
from orchestrator.engine_proxy.policy import decide
from orchestrator.engine_proxy.terms import Terms
from orchestrator.errors import (
    EngineCallInvalid,
    EngineCallRefused,
    EngineError,
    EngineObjectUnknown,
)
from orchestrator.gateway.egress_line import Line, next_event

log = structlog.get_logger(__name__)

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 256 * 1024
READ_SECONDS = 30.0
FAREWELL_SECONDS = 5.0
LOGGED_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Doorman:
    """Serves connections.

    Args:
        engine: The engine.
        terms: What is allowed.
    """

    engine: Engine
    terms: Terms

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection to its end; what comes after its first call is not read."""
        line = Line(reader, writer)
        try:
            await _Conversation(line, self.engine, self.terms).hold()
        finally:
            await line.close()


class _Conversation:
    def __init__(self, line: Line, engine: Engine, terms: Terms) -> None:
        self._line = line
        self._engine = engine
        self._terms = terms
        self._state = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._what = ""

    async def hold(self) -> None:
        try:
            call = await self._read()
            if call is not None:
                await self._carry_out(call)
        except EngineError as error:
            self._record(error)
            await self._refuse(error)
        except (OSError, h11.ProtocolError) as error:
            log.debug("engine_call_broke_off", call=self._what, error=type(error).__name__)

    async def _read(self) -> Call | None:
        """The call, or None if nothing was said."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                request = await next_event(self._state, self._line.read)
                if not isinstance(request, h11.Request):
                    return None
                self._what = _shown(request.method + b" " + request.target)
                _require_plain_request(request)
                body = await self._read_body()
        except TimeoutError:
            raise EngineCallInvalid("The request did not arrive in time.") from None
        except h11.RemoteProtocolError as error:
            raise EngineCallInvalid(f"This is not an HTTP request: {error}.") from None
        return read_call(request.method, request.target, body)

    async def _read_body(self) -> bytes:
        body = b""
        while True:
            event = await next_event(self._state, self._line.read)
            if isinstance(event, h11.EndOfMessage):
                return body
            if not isinstance(event, h11.Data):
                raise EngineCallInvalid("The request ended too early.")
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise EngineCallInvalid(f"The body is larger than {MAX_BODY_BYTES} bytes.")

    async def _carry_out(self, call: Call) -> None:
        order = decide(call, self._terms)
        request = await Guard(self._engine, self._terms).admit(order, call.version)
        async with self._engine.ask(request) as answer:
            await self._pass_on(answer)

    async def _pass_on(self, answer: Answer) -> None:
        await self._send(_head(answer.status, answer.content_type))
        has_body = answer.status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
        async for part in answer.parts():
            if has_body:
                await self._send(h11.Data(data=part))
        await self._send(h11.EndOfMessage())

    async def _refuse(self, error: EngineError) -> None:
        if self._state.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return  # an answer is under way already: all that is left is to break it off
        body = json.dumps({"message": error.detail}).encode()
        with suppress(OSError):  # who does not wait for the answer does not get it
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._send(_head(error.status, b"application/json"))
                await self._send(h11.Data(data=body))
                await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        await self._line.write(self._state.send(event) or b"")

    def _record(self, error: EngineError) -> None:
        if isinstance(error, EngineObjectUnknown) and not error.facts:
            return  # asking is how the orchestrator finds out
        log.warning(error.code, call=self._what, reason=error.detail)


def _require_plain_request(request: h11.Request) -> None:
    for name, _ in request.headers:
        if name in {b"upgrade", b"expect"}:
            raise EngineCallRefused(f"The header {name.decode()} is not taken here.")


def _head(status: int, content_type: bytes) -> h11.Response:
    headers = [(b"Content-Type", content_type), (b"Connection", b"close")]
    return h11.Response(status_code=status, headers=headers, reason=_reason(status))


def _reason(status: int) -> bytes:
    # Clients of the engine show it.
    return HTTPStatus(status).phrase.encode() if status in set(HTTPStatus) else b""


def _shown(text: bytes) -> str:
    return text.decode("latin-1")[:LOGGED_CHARACTERS]
