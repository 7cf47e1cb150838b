"""What the proxy makes of an engine that answers slowly, oddly, or not at all."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.engine_calls import QUALIFIED, TERMS

from orchestrator.engine_proxy.connection import Doorman
from orchestrator.engine_proxy.engine import Engine
from orchestrator.gateway.egress_line import Line

Serve = Callable[[bytes, Line], Awaitable[None]]
"""An engine: what it does about a request's first line."""

VERSION = b"GET /v1.41/version HTTP/1.1\r\nHost: docker\r\n\r\n"
LOGS = f"GET /v1.41/containers/{QUALIFIED}/logs HTTP/1.1\r\nHost: docker\r\n\r\n".encode()
INSPECTED = {"Id": "a" * 64, "Config": {"Labels": {"berth.deployment": "mine"}}}


def answer(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    """A whole answer of an engine."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


@asynccontextmanager
async def proxy_before(serve: Serve, directory: Path) -> AsyncIterator[Line]:
    """A connection to a proxy before an engine."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = Line(reader, writer)
        await serve(head.partition(b"\r\n")[0], line)
        await line.close()

    doorman = Doorman(Engine(directory / "engine"), TERMS)
    engine = await asyncio.start_unix_server(meet, str(directory / "engine"))
    proxy = await asyncio.start_unix_server(doorman.serve, str(directory / "proxy"))
    async with engine, proxy:
        reader, writer = await asyncio.open_unix_connection(str(directory / "proxy"))
        line = Line(reader, writer)
        yield line
        await line.close()


async def said_after(line: Line, request: bytes) -> tuple[int, str]:
    """The status and the message of an answer."""
    await line.write(request)
    head, _, body = (await line.reader.read()).partition(b"\r\n\r\n")
    text = body.partition(b"\r\n")[2].partition(b"\r\n")[0]
    return int(head.split()[1]), json.loads(text)["message"]


async def test_what_the_engine_says_is_passed_on_at_once(passable_directory: Path) -> None:
    go_on = asyncio.Event()

    async def serve(asked: bytes, line: Line) -> None:
        if b"/json" in asked:
            await line.write(answer(json.dumps(INSPECTED).encode()))
            return
        assert asked == f"GET /v1.41/containers/{'a' * 64}/logs HTTP/1.1".encode()
        await line.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await go_on.wait()
        await line.write(b"4\r\nlast\r\n0\r\n\r\n")

    async with proxy_before(serve, passable_directory) as line:
        await line.write(LOGS)
        await line.reader.readuntil(b"first")
        go_on.set()
        await line.reader.readuntil(b"last")
        assert (await line.reader.read()).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "broke off"),
        (b"hello\r\n\r\n", "broke off"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: tcp\r\n\r\n", "broke off"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "not one that was asked for"),
    ],
)
async def test_an_engine_that_does_not_answer_is_named(
    passable_directory: Path, said: bytes, reason: str
) -> None:
    async def serve(_: bytes, line: Line) -> None:
        await line.write(said)

    async with proxy_before(serve, passable_directory) as line:
        with capture_logs() as logs:
            status, message = await said_after(line, VERSION)
    assert (status, reason in message) == (503, True)
    assert [each["event"] for each in logs] == ["engine_unreachable"]


@pytest.mark.parametrize(
    "inspected",
    [b"[]", b"{}", b"x", b'{"Id": "../x", "Config": {"Labels": {"berth.deployment": "mine"}}}'],
)
async def test_facts_that_cannot_be_read_let_nothing_through(
    passable_directory: Path, inspected: bytes
) -> None:
    asked = []

    async def serve(first: bytes, line: Line) -> None:
        asked.append(first)
        await line.write(answer(inspected))

    async with proxy_before(serve, passable_directory) as line:
        assert (await said_after(line, LOGS))[0] == 503
    assert len(asked) == 1


async def test_an_engine_that_fails_at_a_look_up_lets_nothing_through(
    passable_directory: Path,
) -> None:
    async def serve(_: bytes, line: Line) -> None:
        await line.write(answer(b'{"message": "x"}', "500 Error"))

    async with proxy_before(serve, passable_directory) as line:
        status, message = await said_after(line, LOGS)
    assert (status, "answers 500" in message) == (503, True)


async def test_an_answer_that_breaks_off_does_not_look_whole(passable_directory: Path) -> None:
    async def serve(_: bytes, line: Line) -> None:
        await line.write(answer(b"0123456789")[:-5])

    async with proxy_before(serve, passable_directory) as line:
        await line.write(VERSION)
        said = await line.reader.read()
    assert b"01234" in said
    assert not said.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body_have_none(passable_directory: Path, status: str) -> None:
    async def serve(_: bytes, line: Line) -> None:
        await line.write(f"HTTP/1.1 {status}\r\n\r\n".encode())

    async with proxy_before(serve, passable_directory) as line:
        await line.write(VERSION)
        said = await line.reader.read()
    assert said.startswith(b"HTTP/1.1 " + status.encode())
    assert said.endswith(b"\r\n\r\n")


async def test_headers_of_the_client_and_the_engine_stay_where_they_are(
    passable_directory: Path,
) -> None:
    heads = []

    async def serve(first: bytes, line: Line) -> None:
        heads.append(first)
        await line.write(answer(b"{}", more="Set-Cookie: a=b\r\n"))

    request = VERSION.replace(b"\r\n\r\n", b"\r\nX-Registry-Auth: x\r\n\r\n")
    async with proxy_before(serve, passable_directory) as line:
        await line.write(request)
        said = await line.reader.read()
    assert heads == [b"GET /v1.41/version HTTP/1.1"]
    assert b"Set-Cookie" not in said
    assert b"Connection: close" in said


async def test_who_says_nothing_is_let_go(passable_directory: Path) -> None:
    async def serve(_: bytes, line: Line) -> None:
        raise AssertionError

    async with proxy_before(serve, passable_directory) as line:
        with capture_logs() as logs:
            line.writer.write_eof()
            assert await line.reader.read() == b""
    assert logs == []
