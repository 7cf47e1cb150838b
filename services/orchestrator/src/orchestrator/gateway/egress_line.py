"""One end of a connection, and HTTP read from it."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import h11

CHUNK_BYTES = 256 * 1024
CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Line:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> bytes:
        """What has arrived; empty at the end."""
        return await self.reader.read(CHUNK_BYTES)

    async def write(self, data: bytes) -> None:
        """Send, as fast as the other side takes it."""
        self.writer.write(data)
        await self.writer.drain()

    async def start_tls(self, context: ssl.SSLContext, host: str | None = None) -> None:
        """Go on in TLS; whoever accepted the connection is the server.

        Nothing may have been read that belongs to it.

        Args:
            context: How.
            host: Whom the other side must prove to be; None if we are the server.

        Raises:
            OSError: The other side does not agree, or not in time.
        """
        await self.writer.start_tls(
            context, server_hostname=host, ssl_handshake_timeout=CONNECT_SECONDS
        )

    @asynccontextmanager
    async def bare(self) -> AsyncIterator[tuple[socket.socket, bytes]]:
        """The socket, for as long as the context lasts, and what was read from it already.

        A stream copies all that passes twice more than a socket does. From now on the line itself
        can only be closed.

        Raises:
            OSError: The connection broke.
        """
        transport = self.writer.transport
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("connections can be read and written")
        transport.pause_reading()
        self.reader.feed_eof()
        early = await self.reader.read()
        transport.pause_reading()  # emptying a full stream makes it read on
        transport.set_write_buffer_limits(0)
        await self.writer.drain()
        # A second descriptor: the event loop lets nobody else use that of a stream.
        with transport.get_extra_info("socket").dup() as bare:
            yield bare, early

    async def close(self) -> None:
        """Close both directions."""
        self.writer.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                # How the connection ended is of no interest now.
                with suppress(OSError):
                    await self.writer.wait_closed()
        except TimeoutError:
            self.writer.transport.abort()  # the other side does not take what is left for it


@asynccontextmanager
async def connected(address: str, port: int) -> AsyncIterator[Line]:
    """A connection to an address.

    Raises:
        OSError: It cannot be made, or not in time.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(address, port, limit=CHUNK_BYTES)
    line = Line(reader, writer)
    try:
        yield line
    finally:
        await line.close()


async def next_event(state: h11.Connection, read: Callable[[], Awaitable[bytes]]) -> object:
    """The next event of a connection, for which bytes are read as needed.

    Raises:
        h11.RemoteProtocolError: What was read is not HTTP, or its head is too long.
    """
    while True:
        event = state.next_event()
        if event is not h11.NEED_DATA:
            return event
        state.receive_data(await read())
