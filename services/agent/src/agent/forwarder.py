"""A port on loopback behind which the orchestrator's proxy is, for programs in a container."""

import asyncio
import socket
from collections.abc import Awaitable
from pathlib import Path

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
"""Larger pieces cost more: memory for them is mapped anew each time."""
MAX_CONNECTIONS = 256
BACKLOG = 128
FAREWELL_SECONDS = 5.0
ACCEPT_AGAIN_SECONDS = 1.0
_CLOSED = (
    b"HTTP/1.1 502 The way out of this container is closed: no task is at work\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)


class Forwarder:
    """Passes every connection on to a unix socket, unread.

    It works with sockets, not streams: those copy all that passes twice more.

    Args:
        path: Where the orchestrator listens while a task is at work. It is looked up anew for
            each connection, so another orchestrator can take over.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Begin to listen; returns the port.

        Raises:
            OSError: There is no loopback interface.
        """
        listening = socket.create_server((LOOPBACK, 0), backlog=BACKLOG)
        listening.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(listening))
        port: int = listening.getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening and cut what is open."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(set(self._connections))

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    accepted, _ = await loop.sock_accept(listening)
                except OSError:
                    # There are too many open files, or too little memory; that may pass.
                    await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                    continue
                if len(self._connections) >= MAX_CONNECTIONS:
                    accepted.close()
                    continue
                serving = asyncio.create_task(self._serve(accepted))
                self._connections.add(serving)
                serving.add_done_callback(self._connections.discard)

    async def _serve(self, inside: socket.socket) -> None:
        with inside, socket.socket(socket.AF_UNIX) as gate:
            gate.setblocking(False)
            inside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await asyncio.get_running_loop().sock_connect(gate, str(self._path))
            except OSError:
                await _say_closed(inside)
                return
            try:
                await _both(_copy(inside, gate), _copy(gate, inside))
            except OSError:
                return  # a side hung up in the middle; the other sees its connection end


async def _both(first: Awaitable[None], second: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(each) for each in (first, second)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _copy(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, CHUNK_BYTES):
        await loop.sock_sendall(target, data)
    target.shutdown(socket.SHUT_WR)


async def _say_closed(inside: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(FAREWELL_SECONDS):
            await loop.sock_sendall(inside, _CLOSED)
            inside.shutdown(socket.SHUT_WR)
            # Closed with its request unread, a connection is reset and the answer may be lost.
            while await loop.sock_recv(inside, CHUNK_BYTES):
                pass
    except OSError:
        return  # who does not wait for the answer does not get it
