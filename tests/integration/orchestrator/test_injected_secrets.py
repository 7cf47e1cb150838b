"""Secrets that the gateway adds to plain requests: where they go, and where not."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.echo_server import EchoServer, echo_server
from tests.support.egress import admitted, gateway, with_secrets
from tests.support.worker_process import short_directory

from orchestrator.domain.injection import Injection, parse_prefix
from orchestrator.gateway.egress import EgressGateway

VALUE = "s3cret-of-the-operator"


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the directory of a container lies."""
    with short_directory() as directory:
        yield directory


@pytest.fixture
async def echo() -> AsyncIterator[EchoServer]:
    """The server that secrets are for."""
    async with echo_server() as server:
        yield server


@pytest.fixture
async def other() -> AsyncIterator[EchoServer]:
    """A server that is allowed and that no secret is for."""
    async with echo_server() as server:
        yield server


@pytest.fixture
def way(echo: EchoServer, other: EchoServer) -> EgressGateway:
    """A gateway that adds a secret for one of them, below a path."""
    prefix = parse_prefix(f"http://{echo.authority}/v1")
    secret = Injection(prefix, "Authorization", f"Bearer {VALUE}", VALUE)
    return gateway(other.authority, terms_of=with_secrets(secret))


def get(url: str, *headers: str) -> str:
    return "\r\n".join([f"GET {url} HTTP/1.1", "Host: x", *headers, "", ""])


async def test_a_matching_request_gets_it_and_does_not_see_it(
    place: Path, way: EgressGateway, echo: EchoServer
) -> None:
    async with admitted(way, place / "c") as inside:
        answer = await inside.say(
            get(f"http://{echo.authority}/v1/x", "Authorization: Bearer own", "X-Other: yes")
        )
    (asked,) = echo.asked
    assert f"authorization: bearer {VALUE}\r\n".encode() in asked.lower()
    assert asked.lower().count(b"authorization") == 1
    assert b"own" not in asked
    assert b"x-other: yes" in asked.lower()
    assert answer.startswith(b"HTTP/1.1 200")
    assert VALUE.encode() not in answer
    assert answer.count(b"*" * len(VALUE)) == 2, "in a header and in the body"
    assert [event.data["what"] for event in inside.events] == ["reached", "used"]
    assert VALUE not in repr(inside.events)


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v2", "/v10", "/x/v1", "/v1/../v2", "/v1/%2e%2e/v2", "/v1/..%2fv2", "//v1/x"),
        *("/v1/%252e%252e/v2", "/v1/..\\v2", "/v1/..;/v2", "/V1/x", "?/v1/x", "/v1%2f../x"),
    ],
)
async def test_other_paths_are_refused(
    place: Path, way: EgressGateway, echo: EchoServer, path: str
) -> None:
    async with admitted(way, place / "c") as inside:
        answer = await inside.say(get(f"http://{echo.authority}{path}"))
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"only for the requests that its secrets are for" in answer
    assert not echo.asked
    assert inside.whats() == ["refused", "used"]


async def test_other_methods_are_refused(place: Path, way: EgressGateway, echo: EchoServer) -> None:
    async with admitted(way, place / "c") as inside:
        for method, status in (("TRACE", 400), ("get", 403), ("PROPFIND", 403)):
            answer = await inside.say(
                f"{method} http://{echo.authority}/v1/x HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert not echo.asked


async def test_other_workspaces_get_nothing(
    place: Path, way: EgressGateway, echo: EchoServer, other: EchoServer
) -> None:
    async with admitted(way, place / "c", workspace="w2") as inside:
        answer = await inside.say(get(f"http://{echo.authority}/v1/x"))
        assert answer.startswith(b"HTTP/1.1 403")
        assert (await inside.tunnel(echo.authority))[0].startswith(b"HTTP/1.1 403")
        await inside.say(get(f"http://{other.authority}/v1/x"))
    assert not echo.asked
    assert not other.has_seen(VALUE)


async def test_other_hosts_get_nothing_whatever_the_request_says(
    place: Path, way: EgressGateway, echo: EchoServer, other: EchoServer
) -> None:
    there, here = other.authority, echo.authority
    async with admitted(way, place / "c") as inside:
        for request in (
            f"GET http://{there}/v1/x HTTP/1.1\r\nHost: {here}\r\n\r\n",
            f"GET http://{there}/http://{here}/v1/x HTTP/1.1\r\nHost: {here}\r\n\r\n",
            f"GET http://{there}/v1/x HTTP/1.1\r\nHost: {here}\r\nX-Forwarded-Host: {here}\r\n\r\n",
            f"GET http://{there}/v1/x?@{here}/v1/x HTTP/1.1\r\nHost: {here}\r\n\r\n",
            f"GET http://{here}@{there}/v1/x HTTP/1.1\r\nHost: {here}\r\n\r\n",
            f"GET http://{there}\\@{here}/v1/x HTTP/1.1\r\nHost: {here}\r\n\r\n",
            f"GET http://{there}/v1/x HTTP/1.1\r\nHost: {there}\r\nHost: {here}\r\n\r\n",
            f"GET http://{here}/v1/x HTTP/1.1\r\nHost: {here}\r\n Host: {there}\r\n\r\n",
        ):
            await inside.say(request)
        assert not other.has_seen(VALUE)
        head, _, writer = await inside.tunnel(there)
        assert head.startswith(b"HTTP/1.1 200")
        writer.write(get(f"http://{here}/v1/x").encode())
        writer.close()
        assert (await inside.tunnel(here))[0].startswith(b"HTTP/1.1 403"), "no tunnel to it"
    assert not other.has_seen(VALUE)


async def test_one_request_is_answered_and_nothing_is_smuggled_behind_it(
    place: Path, way: EgressGateway, echo: EchoServer
) -> None:
    url = f"http://{echo.authority}/v1/x"
    hidden = f"GET /v2/hidden HTTP/1.1\r\nHost: {echo.authority}\r\n\r\n"
    post = f"POST {url} HTTP/1.1\r\nHost: x\r\n"
    async with admitted(way, place / "c") as inside:
        for request in (
            get(url) + get(url),
            get(url) + hidden,
            f"{post}Content-Length: 0\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}",
            f"{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
            f"{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{hidden}",
            f"{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}",
            f"{post}X: a\rX-Hidden: b\r\n\r\n",
            f"{post}X: a\nAuthorization: Bearer own\n\n",
            get(f"{url} HTTP/1.1\r\nX-Hidden: b\r\n"),
        ):
            answer = await inside.say(request)
            assert answer.count(b"HTTP/1.1 200") <= 1
            assert VALUE.encode() not in answer
    assert not echo.has_seen("hidden HTTP")
    for asked in echo.asked:
        assert asked.startswith((b"GET /v1/x HTTP/1.1\r\n", b"POST /v1/x HTTP/1.1\r\n"))
        assert asked.lower().count(b"\r\nauthorization:") == 1
        assert VALUE.encode() in asked


async def test_a_change_of_protocol_is_refused(
    place: Path, way: EgressGateway, echo: EchoServer
) -> None:
    async with admitted(way, place / "c") as inside:
        answer = await inside.say(
            get(f"http://{echo.authority}/v1/x", "Connection: Upgrade", "Upgrade: websocket")
        )
    assert answer.startswith(b"HTTP/1.1 403")
    assert not echo.asked


async def test_a_redirect_is_handed_back(
    place: Path, way: EgressGateway, echo: EchoServer, other: EchoServer
) -> None:
    echo.answer = (
        f"HTTP/1.1 302 Found\r\nLocation: http://{other.authority}/?k={VALUE}\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()
    async with admitted(way, place / "c") as inside:
        answer = await inside.say(get(f"http://{echo.authority}/v1/x"))
    assert answer.startswith(b"HTTP/1.1 302")
    assert b"/?k=" + b"*" * len(VALUE) in answer
    assert not other.asked
