"""A port on loopback behind which the orchestrator's proxy is, for programs in a container."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 256 * 1024
MAX_CONNECTIONS = 256
CLOSE_SECONDS = 5.0
_CLOSED = (
    b"HTTP/1.1 502 The way out of this container is closed: no task is at work\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)


class Forwarder:
    """Passes every connection on to a unix socket, unread.

    Args:
        socket: Where the orchestrator listens while a task is at work. It is looked up anew for
            each connection, so another orchestrator can take over.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[object]] = set()

    async def start(self) -> int:
        """Begin to listen; returns the port.

        Raises:
            OSError: There is no loopback interface.
        """
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0, limit=CHUNK_BYTES)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening and cut what is open."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(set(self._connections))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        current = asyncio.current_task()
        if current is None or len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(current)
        try:
            await self._forward(reader, writer)
        except asyncio.CancelledError:
            # The worker ends; to the server that called us this is no failure.
            writer.transport.abort()
        except OSError:
            # A side hung up in the middle; the other sees its connection end.
            writer.transport.abort()
        finally:
            self._connections.discard(current)
            await _close(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            gate_reader, gate_writer = await asyncio.open_unix_connection(
                str(self._socket), limit=CHUNK_BYTES
            )
        except OSError:
            writer.write(_CLOSED)
            await writer.drain()
            return
        try:
            await _both(_copy(reader, gate_writer), _copy(gate_reader, writer))
        finally:
            await _close(gate_writer)


async def _both(first: Awaitable[None], second: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(each) for each in (first, second)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            # How the connection ended is of no interest now.
            with suppress(ConnectionError):
                await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()
