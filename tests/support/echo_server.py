"""A web server on this machine that keeps what it is asked and tells it back."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.package_index import HOST


@dataclass(slots=True)
class EchoServer:
    """What it was asked: the head of each request and its body, as they came."""

    port: int = 0
    asked: list[bytes] = field(default_factory=list)
    answer: bytes | None = None

    @property
    def authority(self) -> str:
        """Where it is."""
        return f"{HOST}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer with the request itself, in a header too, in two pieces."""
        try:
            async with asyncio.timeout(30):
                request = await reader.readuntil(b"\r\n\r\n")
                for line in request.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        request += await reader.readexactly(int(line.partition(b":")[2]))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        self.asked.append(request)
        first = next(
            (each for each in request.split(b"\r\n") if each.lower().startswith(b"authorization")),
            b"none: none",
        )
        told = first.partition(b":")[2].strip()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Told: %s\r\n\r\n"
        answer = self.answer or head % (len(request), told) + request
        middle = len(answer) - len(request) // 2
        for piece in (answer[:middle], answer[middle:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    def has_seen(self, text: str) -> bool:
        """Whether a request held this."""
        return any(text.encode() in request for request in self.asked)


@asynccontextmanager
async def echo_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[EchoServer]:
    """The server, for as long as the context lasts."""
    echo = EchoServer()
    server = await asyncio.start_server(echo.serve, HOST, 0, ssl=tls)
    echo.port = server.sockets[0].getsockname()[1]
    try:
        yield echo
    finally:
        server.close()
