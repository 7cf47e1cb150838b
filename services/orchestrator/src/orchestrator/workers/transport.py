"""The way to a worker: to its socket and nothing put in its place, for answers that have an end."""

from collections.abc import AsyncIterator, Iterable

import httpcore2
import httpx2

from orchestrator.domain.container import Endpoint
from orchestrator.unix_socket import pinned_socket

MAX_CONNECTIONS = 64
KEEPALIVE_SECONDS = 600.0
MAX_TOOL_ANSWER_BYTES = 64 * 2**20
EVENTS = "text/event-stream"
"""Read event by event, each of which MCP's client limits."""


class WorkerTransport(httpx2.AsyncHTTPTransport):
    """HTTP to one worker.

    Tools share the worker's user and can answer in its place, so an answer may be anything.

    Args:
        endpoint: Where it listens.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_SECONDS)
        # Workers speak plain HTTP; without this, certificates are read that nobody asks for, which
        # takes longer than waking a container.
        super().__init__(limits=limits, trust_env=False, verify=False)
        if endpoint.uds is not None:
            # The class takes no backend of ours, its pool does.
            self._pool = httpcore2.AsyncConnectionPool(
                max_connections=MAX_CONNECTIONS,
                keepalive_expiry=KEEPALIVE_SECONDS,
                uds=str(endpoint.uds),
                network_backend=_PinnedBackend(),
            )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request.

        Raises:
            httpx2.TransportError: The worker cannot be reached, or its answer is compressed. None
                of ours are, and a few bytes could stand for more than we can hold.
        """
        response = await super().handle_async_request(request)
        if "content-encoding" in response.headers:
            await response.aclose()
            raise httpx2.RemoteProtocolError("The answer is compressed.", request=request)
        stream = response.stream
        # Other answers are counted by those who read them; MCP's client takes all of one.
        if (
            request.url.path.endswith("/mcp")
            and not response.headers.get("content-type", "").startswith(EVENTS)
            and isinstance(stream, httpx2.AsyncByteStream)
        ):
            response.stream = _Bounded(stream)
        return response


class _Bounded(httpx2.AsyncByteStream):
    """A body that breaks off where it becomes too long."""

    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_TOOL_ANSWER_BYTES
        async for chunk in self._body:
            left -= len(chunk)
            if left < 0:
                raise httpx2.RemoteProtocolError("The answer is too long.")
            yield chunk

    async def aclose(self) -> None:
        await self._body.aclose()


class _PinnedBackend(httpcore2.AnyIOBackend):
    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is the library's
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            with pinned_socket(path) as pinned:
                return await super().connect_unix_socket(pinned, timeout, socket_options)
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
