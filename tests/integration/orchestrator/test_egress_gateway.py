"""The gateway's way out with real sockets: what passes, what does not, and what is counted."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.egress import LIMITS, Inside, Names, admitted, container, gateway
from tests.support.package_index import HOST, PACKAGE, WHEEL, package_index
from tests.support.worker_process import short_directory

from orchestrator.domain.container import Endpoint
from orchestrator.domain.egress import Destination, parse_rule
from orchestrator.errors import ConfigurationError, ContainerStartFailed
from orchestrator.gateway import egress_connection
from orchestrator.gateway.egress_terms import EgressTerms, LookUp

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the directory of a container lies."""
    with short_directory() as directory:
        yield directory


@asynccontextmanager
async def peer(serve: Serve) -> AsyncIterator[int]:
    """A server outside; yields its port."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(closing, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and a last word once the other side has ended."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write(b"end")
    await writer.drain()


def get(url: str, *headers: str) -> str:
    return "\r\n".join([f"GET {url} HTTP/1.1", "Host: x", *headers, "", ""])


async def received_until_cut(reader: asyncio.StreamReader) -> int:
    """How many bytes come before the end, or before a reset: there may have been more to send."""
    received = 0
    with suppress(ConnectionResetError):
        while data := await reader.read(65_536):
            received += len(data)
    return received


def used(inside: Inside) -> tuple[object, object]:
    """What the last event says was sent and received."""
    data = inside.events[-1].data
    assert data["what"] == "used"
    return data["sent"], data["received"]


async def test_a_tunnel_passes_both_ways_and_is_counted(place: Path) -> None:
    async with peer(echo) as port, admitted(gateway(f"{HOST}:{port}"), place / "c") as inside:
        head, reader, writer = await inside.tunnel(f"{HOST}:{port}")
        assert head.startswith(b"HTTP/1.1 200")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read() == b"end"
        writer.close()

    assert inside.whats() == ["reached", "used"]
    assert used(inside) == (5, 8)


async def test_what_comes_with_the_request_is_not_lost(place: Path) -> None:
    async with peer(echo) as port, admitted(gateway(f"{HOST}:{port}"), place / "c") as inside:
        reader, writer = await inside.connect()
        writer.write(f"CONNECT {HOST}:{port} HTTP/1.0\r\n\r\nearly".encode())
        writer.write_eof()
        assert (await reader.read()).endswith(b"\r\n\r\nearlyend")
        writer.close()


async def test_far_more_than_is_read_ahead_is_not_lost_either(place: Path) -> None:
    """What was read as a stream and what is read from its socket then meet without a seam."""
    early = bytes(range(256)) * 8_192
    async with peer(echo) as port, admitted(gateway(f"{HOST}:{port}"), place / "c") as inside:
        reader, writer = await inside.connect()
        writer.write(f"CONNECT {HOST}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + early)
        writer.write_eof()
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert rest == early + b"end"
        writer.close()

    assert used(inside) == (len(early), len(early) + 3)


async def test_many_bytes_do_not_pile_up(place: Path) -> None:
    """A reader that is slow slows the sender down instead of filling our memory."""
    sent = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _number in range(1_000):
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    async with peer(pour) as port, admitted(gateway(f"{HOST}:{port}"), place / "c") as inside:
        _, reader, writer = await inside.tunnel(f"{HOST}:{port}")
        before = -1
        while before != sent:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 40 * 2**20
        total = 0
        while data := await reader.read(2**20):
            total += len(data)
        assert total == 65_536_000
        writer.close()


async def test_plain_requests_pass(place: Path) -> None:
    with package_index() as index:
        async with admitted(gateway(index.host), place / "c") as inside:
            page = await inside.say(get(f"{index.url}{PACKAGE}/"))
            assert page.startswith(b"HTTP/1.1 200")
            assert b"\r\nconnection: close\r\n" in page.lower()
            assert WHEEL.encode() in page
            missing = await inside.say(get(f"{index.url}nothing/"))
            assert missing.startswith(b"HTTP/1.1 404")
            both = await inside.say(get(f"{index.url}nothing/") + get(f"{index.url}{PACKAGE}/"))
            assert both.count(b"HTTP/1.1 ") == 1, "one request a connection"
    assert len(index.asked) == 3


async def test_credentials_are_added_outside(place: Path) -> None:
    with package_index() as index:
        there = Destination(HOST, index.port)
        way = gateway(index.host, credentials={there: "Basic c2VjcmV0"})
        async with admitted(way, place / "c") as inside:
            answer = await inside.say(get(f"{index.url}{PACKAGE}/"))
            await inside.say(get(f"{index.url}{PACKAGE}/", "Authorization: Basic b3du"))

    assert b"c2VjcmV0" not in answer
    assert [line.rpartition(" ")[2] for line in index.asked] == ["c2VjcmV0", "b3du"]


async def test_a_body_passes_in_whatever_framing(place: Path) -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        body = await reader.readuntil(b"end")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" + body)

    async with peer(answer) as port, admitted(gateway(f"{HOST}:{port}"), place / "c") as inside:
        url = f"http://{HOST}:{port}/"
        counted = f"POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabcend"
        assert b"abcend" in await inside.say(counted)
        chunked = f"POST {url} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b"abcend" in await inside.say(chunked + "6\r\nabcend\r\n0\r\n\r\n")

    assert b"Content-Length: 6" in heads[0]
    assert b"Transfer-Encoding: chunked" in heads[1]


async def test_an_answer_before_the_end_of_the_request(place: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with peer(refuse) as port, admitted(gateway(f"{HOST}:{port}"), place / "c") as inside:
        head = f"POST http://{HOST}:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n"
        assert (await inside.say(head + "begun")).startswith(b"HTTP/1.1 413")


async def test_a_client_that_breaks_off(place: Path) -> None:
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async with peer(wait) as port, admitted(gateway(f"{HOST}:{port}"), place / "c") as inside:
        _, writer = await inside.connect()
        head = f"POST http://{HOST}:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n"
        writer.write(head.encode() + b"begun")
        await writer.drain()
        writer.close()
        async with asyncio.timeout(60):
            await ended.wait()


@pytest.mark.parametrize(
    "request_head",
    [
        "POST http://{host}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "POST http://{host}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "GET http://{host}/ HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET http://{host}/ HTTP/1.1\r\nHost: x\r\nA: b\r\n c\x00\r\n\r\n",
        "GET http://{host}/\r\n\r\n",
        "GET http://{host}/ HTTP/1.1\r\nHost: x\r\nLong: " + "x" * 40_000,
        "\x16\x03\x01 this is TLS\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused(place: Path, request_head: str) -> None:
    async with peer(echo) as port, admitted(gateway(f"{HOST}:{port}"), place / "c") as inside:
        answer = await inside.say(request_head.format(host=f"{HOST}:{port}"))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert inside.whats() == []


@pytest.mark.parametrize(
    ("authority", "status"),
    [
        ("example.org:443", 403),
        ("169.254.169.254:80", 403),
        ("metadata.test:80", 403),
        ("private.test:443", 403),
        ("mixed.test:443", 403),
        ("mapped.test:443", 403),
        ("[::ffff:10.0.0.1]:443", 403),
        ("[fd00::1]:443", 403),
        ("10.0.0.1:443", 403),
        ("public.test:22", 403),
        ("nowhere.test:443", 502),
        ("127.1:443", 400),
        ("2130706433:443", 400),
        ("0x7f.0.0.1:443", 400),
        ("0177.0.0.1:443", 400),
        ("public.test@10.0.0.1:443", 400),
        ("public.test:443:443", 400),
        ("[::1%25lo]:443", 400),
    ],
)
async def test_what_is_refused(place: Path, authority: str, status: int) -> None:
    names = Names(
        {
            "metadata.test": [["169.254.169.254"]],
            "private.test": [["192.168.0.1"]],
            "mixed.test": [["8.8.8.8", "10.0.0.1"]],
            "mapped.test": [["::ffff:127.0.0.1"]],
            "public.test": [["8.8.8.8"]],
        }
    )
    # The operator's allowing a host to be private does not open the own link behind its name.
    allow = ("metadata.test",)
    rules = ("*.test", "169.254.169.254", "10.0.0.1", "[fd00::1]", "[::ffff:10.0.0.1]")
    way = gateway(*rules, resolver=names, allow_hosts=allow)
    async with admitted(way, place / "c") as inside:
        head, _, writer = await inside.tunnel(authority)
        writer.close()

    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert inside.whats() == ["refused", "used"]
    assert str(inside.events[0].data["detail"]) in head.decode()


async def test_a_final_dot_and_capitals_are_the_same_host(place: Path) -> None:
    names = Names({"peer.test": [[HOST]]})
    async with peer(echo) as port:
        way = gateway(f"peer.test:{port}", resolver=names, allow_hosts=["peer.test"])
        async with admitted(way, place / "c") as inside:
            head, _, writer = await inside.tunnel(f"PEER.test.:{port}")
            writer.close()

    assert head.startswith(b"HTTP/1.1 200")
    assert names.asked == ["peer.test"]


async def test_a_name_is_resolved_once_and_connected_where_it_was_checked(place: Path) -> None:
    """The second look-up would lead to this machine; there must not be one."""
    names = Names({"twofold.test": [[HOST], ["127.0.0.1"]]})
    reached: list[str] = []

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(writer.get_extra_info("sockname")[0])

    async with peer(note) as port:
        way = gateway(f"twofold.test:{port}", resolver=names, allow_hosts=["twofold.test"])
        async with admitted(way, place / "c") as inside:
            head, reader, writer = await inside.tunnel(f"twofold.test:{port}")
            await reader.read()
            writer.close()
    assert head.startswith(b"HTTP/1.1 200")
    assert names.asked == ["twofold.test"]
    assert reached == [HOST]

    rebound = Names({"twofold.test": [["8.8.8.8"], [HOST]]})
    way = gateway("twofold.test", resolver=rebound, allow_hosts=[])
    await rebound("twofold.test", 443)  # somebody's look-up that found nothing wrong
    async with admitted(way, place / "c") as inside:
        head, _, writer = await inside.tunnel("twofold.test:443")
        writer.close()
    assert head.startswith(b"HTTP/1.1 403")


async def test_a_redirect_is_the_clients_own_next_request(place: Path) -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n")

    async with peer(redirect) as port, admitted(gateway(f"{HOST}:{port}"), place / "c") as inside:
        first = await inside.say(get(f"http://{HOST}:{port}/"))
        second = await inside.say(get("http://169.254.169.254/"))

    assert b"302" in first.split(b"\r\n")[0]
    assert second.startswith(b"HTTP/1.1 403")


async def test_a_refusal_is_told_once_and_counted_each_time(place: Path) -> None:
    async with admitted(gateway(), place / "c") as inside:
        for _ in range(3):
            answer = await inside.say(get("http://example.org/"))
        assert answer.endswith(
            b"example.org is not allowed: the operator allows hosts with BERTH_EGRESS_ALLOW and "
            b"package managers with BERTH_EGRESS_PRESETS.\n"
        )
    assert inside.whats() == ["refused", "used"]
    assert inside.events[-1].data["refusals"] == 3


def proxy_authorization(inside: Inside) -> str:
    pair = base64.b64encode(f"{inside.user}:{inside.password}".encode()).decode()
    return f"Proxy-Authorization: Basic {pair}"


async def test_tasks_of_one_container_are_told_apart(place: Path) -> None:
    way, url = gateway(), "http://example.org/"
    async with admitted(way, place / "c", "a") as a, admitted(way, place / "c", "b") as b:
        assert (await a.say(get(url))).startswith(b"HTTP/1.1 407")
        assert b"proxy-authenticate: basic" in (await a.say(get(url))).lower()
        assert (await a.say(get(url, proxy_authorization(b)))).startswith(b"HTTP/1.1 403")
        forged = Inside(a.socket, [], "a", b.password)
        assert (await a.say(get(url, proxy_authorization(forged)))).startswith(b"HTTP/1.1 407")

    assert a.whats() == []
    assert b.whats() == ["refused", "used"]


async def test_containers_have_sockets_of_their_own(place: Path) -> None:
    way = gateway()
    async with admitted(way, place / "a", "a") as a, admitted(way, place / "b", "b") as b:
        assert a.socket != b.socket
        answer = await a.say(get("http://example.org/", proxy_authorization(b)))

    assert answer.startswith(b"HTTP/1.1 407")
    assert b.whats() == []


async def test_nobody_goes_out_after_the_task(place: Path) -> None:
    async with peer(echo) as port:
        way = gateway(f"{HOST}:{port}")
        async with admitted(way, place / "c") as inside:
            _, reader, writer = await inside.tunnel(f"{HOST}:{port}")
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(OSError, match="refused"):
            await inside.connect()
        async with admitted(way, place / "c") as inside:  # the next task can
            head, _, writer = await inside.tunnel(f"{HOST}:{port}")
            assert head.startswith(b"HTTP/1.1 200")
            writer.close()


async def test_limits_of_bytes(place: Path) -> None:
    limits = replace(LIMITS, task_bytes=100_000)
    async with peer(echo) as port:
        way = gateway(f"{HOST}:{port}", limits=limits)
        async with admitted(way, place / "c") as inside:
            _, reader, writer = await inside.tunnel(f"{HOST}:{port}")
            writer.write(bytes(200_000))
            assert await received_until_cut(reader) < 200_000
            writer.close()
            head, _, writer = await inside.tunnel(f"{HOST}:{port}")
            writer.close()
        assert head.startswith(b"HTTP/1.1 429")
        assert b"BERTH_EGRESS_TASK_BYTES" in head
        assert inside.whats() == ["reached", "refused", "used"]
        async with admitted(way, place / "c", "other") as inside:
            head, _, writer = await inside.tunnel(f"{HOST}:{port}")
            writer.close()
        assert head.startswith(b"HTTP/1.1 200")


async def test_the_workspaces_bytes_are_those_of_all_its_tasks(place: Path) -> None:
    limits = replace(LIMITS, workspace_bytes=100_000)
    async with peer(echo) as port:
        way = gateway(f"{HOST}:{port}", limits=limits)
        for expected in (b"200", b"429"):
            async with admitted(way, place / "c") as inside:
                head, reader, writer = await inside.tunnel(f"{HOST}:{port}")
                assert head.split()[1] == expected
                if expected == b"200":
                    writer.write(bytes(200_000))
                    assert await received_until_cut(reader) < 200_000
                writer.close()
        assert b"BERTH_EGRESS_WORKSPACE_BYTES" in head


async def test_limits_of_connections(place: Path) -> None:
    async with peer(echo) as port:
        way = gateway(f"{HOST}:{port}", limits=replace(LIMITS, task_connections=2))
        async with admitted(way, place / "c") as inside:
            opened = [await inside.tunnel(f"{HOST}:{port}") for _ in range(3)]
            assert [head.split()[1] for head, _, _ in opened] == [b"200", b"200", b"429"]
            opened[0][2].close()
            async with asyncio.timeout(60):
                while (again := await inside.tunnel(f"{HOST}:{port}"))[0].split()[1] != b"200":
                    again[2].close()
            for _, _, writer in (*opened, again):
                writer.close()


async def test_a_silent_connection_is_cut(place: Path) -> None:
    async with peer(echo) as port:
        way = gateway(f"{HOST}:{port}", limits=replace(LIMITS, idle_seconds=0.2))
        async with admitted(way, place / "c") as inside:
            _, reader, writer = await inside.tunnel(f"{HOST}:{port}")
            async with asyncio.timeout(60):
                assert await reader.read() == b""
            writer.close()


async def test_a_head_that_drips_is_cut(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_connection, "HEAD_SECONDS", 0.2)
    async with admitted(gateway(), place / "c") as inside:
        assert b"did not arrive in time" in await inside.say("GET http://exam")


async def test_a_peer_that_does_not_answer(place: Path) -> None:
    async with peer(echo) as port:
        pass
    async with admitted(gateway(f"{HOST}:{port}"), place / "c") as inside:
        head, _, writer = await inside.tunnel(f"{HOST}:{port}")
        writer.close()
    assert head.startswith(b"HTTP/1.1 502")


async def test_nothing_that_the_container_leaves_is_followed(place: Path) -> None:
    """The container writes to the directory; what lies there must lead us nowhere."""
    outside = place / "outside"
    outside.write_text("untouched")
    outside.chmod(0o600)
    directory = place / "c"
    directory.mkdir()
    (directory / "egress.sock").symlink_to(outside)
    async with admitted(gateway(), directory) as inside:
        assert inside.socket.is_socket()
        assert not inside.socket.is_symlink()
    assert outside.read_text() == "untouched"
    assert outside.stat().st_mode & 0o777 == 0o600

    inside.socket.unlink()
    inside.socket.mkdir()
    (inside.socket / "full").touch()
    with pytest.raises(ContainerStartFailed):
        async with admitted(gateway(), directory):
            pass
    assert sorted(path.name for path in place.iterdir()) == ["c", "outside"]


async def test_a_proxy_of_this_machine_is_used(place: Path) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        if head.startswith(b"CONNECT refused"):
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        elif head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nwelcome ")
            await echo(reader, writer)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async with peer(proxy) as port:
        environment = {
            "HTTP_PROXY": f"http://{HOST}:{port}",
            "https_proxy": f"http://ada:pw@{HOST}:{port}",
            "NO_PROXY": "direct.test",
        }
        rules = ("far.test", "refused.test", "direct.test", "10.0.0.1")
        way = gateway(*rules, environment=environment)
        async with admitted(way, place / "c") as inside:
            head, reader, writer = await inside.tunnel("far.test:443")
            writer.write(b"hello")
            writer.write_eof()
            said = await reader.read()
            writer.close()
            plain = await inside.say(get("http://far.test/a", proxy_authorization(inside)))
            refused = [
                (await inside.tunnel(each))[0]
                for each in ("refused.test:443", "direct.test:443", "10.0.0.1:443", "no.test:443")
            ]

    assert head.startswith(b"HTTP/1.1 200")
    assert said == b"welcome helloend"
    assert plain.endswith(b"hi")
    assert asked[0].startswith(b"CONNECT far.test:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic YWRhOnB3" in asked[0]
    assert asked[1].startswith(b"GET http://far.test/a HTTP/1.1\r\n")
    assert b"Authorization" not in asked[1]
    assert [each.split()[1] for each in refused] == [b"502", b"502", b"403", b"403"]
    assert len(asked) == 3


@pytest.mark.parametrize("url", ["socks5://a:1", "https://a:1", "http://", "http://a:x"])
def test_a_proxy_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ConfigurationError):
        gateway(environment={"ALL_PROXY": url})


async def test_a_container_without_a_socket_has_no_way_out(place: Path) -> None:
    reached_by_port = replace(container(place), endpoint=Endpoint(None, "http://127.0.0.1:1"))

    async with gateway().admit("task", reached_by_port, asyncio.sleep) as admission:  # type: ignore[arg-type]
        assert admission.egress_pass is None
        assert admission.take_refusals() == ()


async def test_a_workspaces_own_terms_count_at_once(place: Path) -> None:
    terms = {"w": EgressTerms(LIMITS)}

    def terms_of(workspace_id: str) -> LookUp:
        async def look_up() -> EgressTerms:
            return terms[workspace_id]

        return look_up

    async with peer(echo) as port:
        way = gateway(terms_of=terms_of)
        rule = parse_rule(f"{HOST}:{port}")
        async with admitted(way, place / "c", workspace="w") as inside:
            assert (await inside.tunnel(f"{HOST}:{port}"))[0].startswith(b"HTTP/1.1 403")
            terms["w"] = EgressTerms(LIMITS, (rule,))
            head, reader, writer = await inside.tunnel(f"{HOST}:{port}")
            assert head.startswith(b"HTTP/1.1 200")
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            terms["w"] = EgressTerms(replace(LIMITS, task_bytes=1), (rule,))
            assert (await inside.tunnel(f"{HOST}:{port}"))[0].startswith(b"HTTP/1.1 429")
            writer.close()
    assert inside.whats() == ["refused", "reached", "refused", "used"]
