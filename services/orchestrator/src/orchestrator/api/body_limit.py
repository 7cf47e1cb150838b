"""Refuse request bodies that are too large, before they are read into memory."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problem import problem
from orchestrator.errors import RequestTooLarge


class _TooLargeError(Exception):
    pass


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
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise _TooLargeError
            return message

        try:
            await self._app(scope, counted, send)
        except _TooLargeError:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem(
            RequestTooLarge.status,
            RequestTooLarge.code,
            f"The request body is larger than {self._max_bytes:,} bytes: send less, or upload "
            "files with PUT /files/{name}.",
        )
        response.headers["Connection"] = "close"
        await response(scope, receive, send)
