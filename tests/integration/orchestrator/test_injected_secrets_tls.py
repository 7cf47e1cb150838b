"""Secrets added to encrypted requests: the tunnel ends in the gateway, and only where it must."""

import asyncio
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.echo_server import EchoServer, echo_server
from tests.support.egress import Inside, admitted, gateway, with_secrets
from tests.support.package_index import HOST, self_signed
from tests.support.worker_process import short_directory

from orchestrator.domain.injection import Injection, parse_prefix
from orchestrator.gateway.egress import EgressGateway

VALUE = "s3cret-of-the-operator"


@pytest.fixture(scope="module")
def certificate() -> Iterator[Path]:
    """Key and certificate of the servers."""
    directory = Path(tempfile.mkdtemp(prefix="berth-"))
    yield self_signed(directory / "server.pem")
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def roots(certificate: Path) -> bytes:
    """What the gateway trusts."""
    return certificate.with_suffix(".crt").read_bytes()


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the directory of a container lies."""
    with short_directory() as directory:
        yield directory


@pytest.fixture
async def echo(certificate: Path) -> AsyncIterator[EchoServer]:
    """The server that secrets are for."""
    async with echo_server(server_context(certificate)) as server:
        yield server


@pytest.fixture
async def other(certificate: Path) -> AsyncIterator[EchoServer]:
    """A server that is allowed and that no secret is for."""
    async with echo_server(server_context(certificate)) as server:
        yield server


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def with_secret(
    echo: EchoServer, other: EchoServer, roots: bytes | None, path: str = "/v1"
) -> EgressGateway:
    """A gateway that adds a secret for one of them."""
    prefix = parse_prefix(f"https://{echo.authority}{path}")
    secret = Injection(prefix, "Authorization", f"Bearer {VALUE}", VALUE)
    return gateway(other.authority, terms_of=with_secrets(secret), roots=roots)


def get(path: str, host: str = "x", *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode()


async def secure(
    inside: Inside, authority: str, trusted: bytes | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """TLS through the gateway, as a program does it that trusts what it was told to trust."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    given = trusted or (inside.socket.parent / "certificates.pem").read_bytes()
    context.load_verify_locations(cadata=given.decode())
    context.set_alpn_protocols(["h2", "http/1.1"])
    head, reader, writer = await inside.tunnel(authority)
    assert head.startswith(b"HTTP/1.1 200"), head
    await writer.start_tls(context, server_hostname=HOST, ssl_handshake_timeout=10)
    return reader, writer


async def asked(inside: Inside, authority: str, request: bytes) -> bytes:
    """All that is answered to a request in TLS."""
    reader, writer = await secure(inside, authority)
    writer.write(request)
    try:
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


async def test_a_matching_request_gets_it_and_does_not_see_it(
    place: Path, echo: EchoServer, other: EchoServer, roots: bytes
) -> None:
    async with admitted(with_secret(echo, other, roots), place / "c") as inside:
        request = get("/v1/x", "evil.test", "authorization: Bearer own", "Accept-Encoding: br")
        answer = await asked(inside, echo.authority, request)
    (seen,) = echo.asked
    assert seen.startswith(b"GET /v1/x HTTP/1.1\r\n")
    assert f"host: {echo.authority}\r\n".encode() in seen.lower()
    assert f"authorization: bearer {VALUE}\r\n".encode() in seen.lower()
    assert b"own" not in seen
    assert b"evil" not in seen
    assert b"br\r\n" not in seen
    assert answer.startswith(b"HTTP/1.1 200")
    assert VALUE.encode() not in answer
    assert answer.count(b"*" * len(VALUE)) == 2, "in a header and in the body"
    assert inside.whats() == ["reached", "used"]
    assert int(str(inside.events[-1].data["sent"])) == len(seen)
    assert VALUE not in repr(inside.events)


async def test_a_large_body_passes_both_ways(
    place: Path, echo: EchoServer, other: EchoServer, roots: bytes
) -> None:
    size = 20 * 2**20
    async with admitted(with_secret(echo, other, roots), place / "c") as inside:
        head = f"PUT /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        answer = await asked(inside, echo.authority, head.encode() + b"a" * size)
    assert len(echo.asked[0]) > size
    assert len(answer.partition(b"\r\n\r\n")[2]) == len(echo.asked[0])
    assert answer.endswith(b"a" * size)
    assert VALUE.encode() not in answer


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v2", "/v10", "/v1/../v2", "/v1/%2e%2e/v2", "/v1/..%2fv2", "//v1/x", "/V1/x"),
        *("/v1/%252e%252e/v2", "/v1/..\\v2", "/v1/..;/v2", "/v1%2f../x"),
    ],
)
async def test_other_paths_are_refused(
    place: Path, echo: EchoServer, other: EchoServer, roots: bytes, path: str
) -> None:
    async with admitted(with_secret(echo, other, roots), place / "c") as inside:
        answer = await asked(inside, echo.authority, get(path))
    assert answer.startswith(b"HTTP/1.1 403")
    assert not echo.asked
    assert inside.whats() == ["refused", "used"]


async def test_requests_that_are_none_to_a_server(
    place: Path, echo: EchoServer, other: EchoServer, roots: bytes
) -> None:
    here, there = echo.authority, other.authority
    async with admitted(with_secret(echo, other, roots), place / "c") as inside:
        for request in (
            get(f"https://{there}/v1/x"),
            get(f"https://{here}/v1/x"),
            get(f"http://{here}/v1/x"),
            f"CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n\r\n".encode(),
            f"OPTIONS * HTTP/1.1\r\nHost: {here}\r\n\r\n".encode(),
            f"GET /v1/x HTTP/1.1\r\nHost: {here}\r\nHost: {there}\r\n\r\n".encode(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x00\x01\x02\r\n\r\n",
        ):
            answer = await asked(inside, here, request)
            assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403")), request
        upgrade = get("/v1/x", here, "Connection: upgrade", "Upgrade: websocket")
        assert (await asked(inside, here, upgrade)).startswith(b"HTTP/1.1 403")
    assert not echo.asked
    assert not other.asked


async def test_one_request_is_answered_and_nothing_is_smuggled_behind_it(
    place: Path, echo: EchoServer, other: EchoServer, roots: bytes
) -> None:
    hidden = get("/v2/hidden").decode()
    post = "POST /v1/x HTTP/1.1\r\nHost: x\r\n"
    async with admitted(with_secret(echo, other, roots), place / "c") as inside:
        for request in (
            get("/v1/x").decode() * 2,
            get("/v1/x").decode() + hidden,
            f"{post}Content-Length: 0\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}",
            f"{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
            f"{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}",
            f"{post}X: a\rX-Hidden: b\r\n\r\n",
            f"{post}Transfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: Bearer own\r\n\r\n",
        ):
            answer = await asked(inside, echo.authority, request.encode())
            assert answer.count(b"HTTP/1.1 200") <= 1
            assert VALUE.encode() not in answer
    assert not any(b"hidden HTTP" in seen or b"own" in seen for seen in echo.asked)
    for seen in echo.asked:
        assert seen.startswith((b"GET /v1/x HTTP/1.1\r\n", b"POST /v1/x HTTP/1.1\r\n"))
        assert seen.lower().count(b"\r\nauthorization:") == 1


async def test_other_hosts_keep_their_own_tls(
    place: Path, echo: EchoServer, other: EchoServer, roots: bytes
) -> None:
    """A tunnel elsewhere is not read, whatever the requests in it or the server's name say."""
    async with admitted(with_secret(echo, other, roots), place / "c") as inside:
        reader, writer = await secure(inside, other.authority, roots)
        writer.write(get("/v1/x", echo.authority))
        assert VALUE.encode() not in await reader.read()
        writer.close()
    assert not other.has_seen(VALUE)
    assert not echo.asked


async def test_other_workspaces_have_neither_the_secret_nor_the_way(
    place: Path, echo: EchoServer, other: EchoServer, roots: bytes
) -> None:
    way = with_secret(echo, other, roots)
    async with admitted(way, place / "c", workspace="w2") as inside:
        assert not (place / "c" / "certificates.pem").exists()
        assert (await inside.tunnel(echo.authority))[0].startswith(b"HTTP/1.1 403")
    assert not echo.asked


async def test_a_server_that_proves_nothing_gets_nothing(
    place: Path, echo: EchoServer, other: EchoServer, roots: bytes
) -> None:
    async with admitted(with_secret(echo, other, None), place / "c") as inside:
        answer = await asked(inside, echo.authority, get("/v1/x"))
        assert answer.startswith(b"HTTP/1.1 502")
        assert b"does not prove to be" in answer
    assert not echo.asked
    async with echo_server() as plain:
        async with admitted(with_secret(plain, other, roots), place / "d") as inside:
            answer = await asked(inside, plain.authority, get("/v1/x"))
        assert b"does not speak TLS" in answer
        assert not plain.has_seen(VALUE)


async def test_a_program_that_does_not_trust_the_gateway(
    place: Path, echo: EchoServer, other: EchoServer, roots: bytes
) -> None:
    async with admitted(with_secret(echo, other, roots), place / "c") as inside:
        with pytest.raises(ssl.SSLCertVerificationError):
            await secure(inside, echo.authority, roots)
        head, reader, writer = await inside.tunnel(echo.authority)
        assert head.startswith(b"HTTP/1.1 200")
        writer.write(get("/v1/x"))  # without TLS
        assert VALUE.encode() not in await reader.read()
        writer.close()
    assert not echo.asked
    assert inside.whats() == ["refused", "used"]
    assert "SSL_CERT_FILE" in str(inside.events[0].data["detail"])


async def test_where_all_is_allowed_other_requests_pass_without_it(
    place: Path, echo: EchoServer, roots: bytes
) -> None:
    async with admitted(with_secret(echo, echo, roots), place / "c") as inside:
        answer = await asked(inside, echo.authority, get("/v2", "x", "Authorization: Bearer own"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Bearer own" in answer
    assert not echo.has_seen(VALUE)


async def test_programs_are_told_whom_to_trust(
    place: Path, echo: EchoServer, other: EchoServer, roots: bytes
) -> None:
    way = with_secret(echo, other, roots)
    trusted = place / "c" / "certificates.pem"
    async with admitted(way, place / "c"):
        first = trusted.read_bytes()
        assert first.startswith(roots.rstrip())
        assert first.count(b"BEGIN CERTIFICATE") == 2
        assert b"PRIVATE" not in first
    async with admitted(way, place / "c"):
        assert trusted.read_bytes() == first
    async with admitted(gateway(), place / "c"):
        assert not trusted.exists()


async def test_through_a_proxy_of_this_machine(
    place: Path, echo: EchoServer, other: EchoServer, roots: bytes
) -> None:
    heads: list[bytes] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        there_reader, there_writer = await asyncio.open_connection(HOST, echo.port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(forward, HOST, 0)
    environment = {"HTTPS_PROXY": f"http://{HOST}:{server.sockets[0].getsockname()[1]}"}
    secret = Injection(
        parse_prefix(f"https://{echo.authority}"), "X-Api-Key", VALUE, VALUE, frozenset({"GET"})
    )
    way = gateway(terms_of=with_secrets(secret), roots=roots, environment=environment)
    async with admitted(way, place / "c") as inside:
        answer = await asked(inside, echo.authority, get("/", "x", "X-Api-Key: own"))
    server.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert [head.split(b"\r\n")[0] for head in heads] == [
        f"CONNECT {echo.authority} HTTP/1.1".encode()
    ]
    assert VALUE.encode() not in heads[0]
    assert echo.has_seen(f"X-Api-Key: {VALUE}")
