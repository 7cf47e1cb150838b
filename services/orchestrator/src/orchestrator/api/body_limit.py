"""Refuse request bodies that are too large, before they are read into memory."""

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problem import problem
from orchestrator.errors import RequestTooLarge

DRAIN_SECONDS = 10.0
DRAIN_LIMITS = 4
"""How many times the limit is read and thrown away, so that the client gets to our answer."""


class BodyLimit:
    """Middleware that counts a body's bytes, announced or not."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on while its body stays within the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self._max_bytes:
            if "expect" not in headers:  # a client that asks first has sent nothing yet
                await self._drain(receive)
            response = problem(RequestTooLarge.status, RequestTooLarge.code, self._sentence())
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                await self._drain(receive)
                # The only kind of error that FastAPI lets through from reading a body.
                raise HTTPException(RequestTooLarge.status, self._sentence())
            return message

        return counted

    async def _drain(self, receive: Receive) -> None:
        """Read what the client still sends: who is cut off while sending never sees the answer."""
        read = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while read < DRAIN_LIMITS * self._max_bytes:
                    message = await receive()
                    read += len(message.get("body", b""))
                    if not message.get("more_body"):
                        return
        except TimeoutError:
            return

    def _sentence(self) -> str:
        return (
            f"The request body is larger than {self._max_bytes:,} bytes: send less, or upload "
            "files one by one with PUT /files/{name}."
        )
