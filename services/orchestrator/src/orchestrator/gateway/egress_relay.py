"""Bytes on their way through the gateway: bounded, counted, and cut off when nothing moves."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import h11

from orchestrator.domain.egress import Destination
from orchestrator.gateway.egress_account import Account
from orchestrator.gateway.egress_line import Line, next_event
from orchestrator.gateway.egress_request import returned_response
from orchestrator.gateway.redaction import Redaction

TUNNEL_CHUNK_BYTES = 64 * 1024
"""Larger pieces cost more: memory for them is mapped anew each time."""


class Remote:
    """The connection to a destination: what moves on it is counted and resets the idle time."""

    def __init__(
        self, line: Line, account: Account, destination: Destination, idle: asyncio.Timeout
    ) -> None:
        self._line = line
        self._account = account
        self._destination = destination
        self._idle = idle

    async def read(self) -> bytes:
        """What has arrived; empty at the end."""
        data = await self._line.read()
        self.count(received=len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Send."""
        await self._line.write(data)
        self.count(sent=len(data))

    def bare(self) -> AbstractAsyncContextManager[tuple[socket.socket, bytes]]:
        """See `Line.bare`; whoever moves bytes there counts them."""
        return self._line.bare()

    def count(self, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes that were moved.

        Raises:
            EgressExhausted: They were the last that may be.
        """
        self._account.count(self._destination, sent=sent, received=received)
        now = asyncio.get_running_loop().time()
        self._idle.reschedule(now + self._account.idle_seconds)


async def tunnel(client: Line, remote: Remote, early: bytes) -> None:
    """Copy both ways until both sides have ended.

    Args:
        client: Who asked for the tunnel.
        remote: Where it leads.
        early: What the client sent before the tunnel stood.

    Raises:
        OSError: A side broke off.
        EgressExhausted: The task's bytes are used up.
    """
    async with client.bare() as (inside, asked), remote.bare() as (outside, answered):
        await _both(
            _copy(inside, outside, early + asked, lambda size: remote.count(sent=size)),
            _copy(outside, inside, answered, lambda size: remote.count(received=size)),
        )


async def exchange(
    client: Line,
    asked: h11.Connection,
    remote: Remote,
    onward: h11.Request,
    redaction: Redaction | None = None,
) -> None:
    """Send one request on, and its response back.

    Args:
        client: Who asked.
        asked: The state of HTTP with the client, of which the request's head was read.
        remote: Where the request goes.
        onward: The request as it goes on.
        redaction: What is taken out of the response.

    Raises:
        h11.ProtocolError: A side breaks the rules of HTTP.
        OSError: A side broke off.
        EgressExhausted: The task's bytes are used up.
    """
    sent = h11.Connection(h11.CLIENT)
    await remote.write(sent.send(onward) or b"")
    upload = asyncio.create_task(_send_body(client, asked, remote, sent))
    download = asyncio.create_task(
        _send_back(client, asked, remote, sent, redaction or Redaction())
    )
    try:
        await asyncio.wait((upload, download), return_when=asyncio.FIRST_COMPLETED)
        if upload.done():
            upload.result()
        await download
    finally:
        upload.cancel()
        download.cancel()
        # What went wrong first is on its way up; what followed from it says nothing new.
        await asyncio.gather(upload, download, return_exceptions=True)


async def _both(first: Awaitable[None], second: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(each) for each in (first, second)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _copy(
    source: socket.socket, target: socket.socket, first: bytes, count: Callable[[int], None]
) -> None:
    loop = asyncio.get_running_loop()
    data = first or await loop.sock_recv(source, TUNNEL_CHUNK_BYTES)
    while data:
        count(len(data))
        await loop.sock_sendall(target, data)
        data = await loop.sock_recv(source, TUNNEL_CHUNK_BYTES)
    target.shutdown(socket.SHUT_WR)


async def _send_body(
    client: Line, asked: h11.Connection, remote: Remote, sent: h11.Connection
) -> None:
    if asked.they_are_waiting_for_100_continue:
        interim = h11.InformationalResponse(status_code=100, headers=[])
        await client.write(asked.send(interim) or b"")
    while True:
        event = await next_event(asked, client.read)
        if not isinstance(event, h11.Data | h11.EndOfMessage):
            raise h11.RemoteProtocolError("the request ended too early")
        # Headers after the body go no further: nobody checks them.
        onward: h11.Event = h11.EndOfMessage()
        if isinstance(event, h11.Data):
            onward = h11.Data(data=bytes(event.data))
        try:
            await remote.write(sent.send(onward) or b"")
        except ConnectionError:
            return  # a server may answer and hang up before it has taken the whole request
        if isinstance(event, h11.EndOfMessage):
            return


async def _send_back(
    client: Line,
    asked: h11.Connection,
    remote: Remote,
    sent: h11.Connection,
    redaction: Redaction,
) -> None:
    while True:
        event = await next_event(sent, remote.read)
        if isinstance(event, h11.Response):
            await client.write(asked.send(returned_response(event, redaction)) or b"")
        elif isinstance(event, h11.Data):
            data = redaction.feed(bytes(event.data))
            await client.write(asked.send(h11.Data(data=data)) or b"")
        elif isinstance(event, h11.EndOfMessage):
            last = asked.send(h11.Data(data=redaction.rest())) or b""
            await client.write(last + (asked.send(h11.EndOfMessage()) or b""))
            return
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError("the response ended too early")
