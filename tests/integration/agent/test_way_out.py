"""The forwarder and the variables of a task, in a real worker with a real gateway behind it."""

import asyncio
import os
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from tests.support.egress import Inside, admitted, gateway
from tests.support.package_index import PACKAGE, WHEEL, PackageIndex, package_index
from tests.support.worker_process import KEY, WorkerProcess, short_directory, worker_process

from agent.apt import SOURCES, Apt
from agent.forwarder import Forwarder
from agent.way_out import Pass, WayOut, proxy_variables
from orchestrator.domain.egress import EgressPass
from orchestrator.workers.client import HttpWorker, HttpWorkers

GIVEN = Pass("task 1", "p@ss:word", {"PIP_INDEX_URL": "http://index.test/"})


@pytest.fixture
async def worker() -> AsyncIterator[WorkerProcess]:
    with short_directory() as directory:
        async with worker_process(directory) as running:
            yield running


@pytest.fixture
async def claimed(worker: WorkerProcess) -> AsyncIterator[HttpWorker]:
    connected = await HttpWorkers().connect(worker.container, KEY)
    yield connected
    await connected.close()


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    with package_index() as index:
        yield index


async def run(claimed: HttpWorker, task: str, command: str) -> str:
    async with claimed.toolbox(task) as toolbox:
        return (await toolbox.call("bash", {"command": command})).text


async def prepare(claimed: HttpWorker, inside: Inside | None, task: str = "t") -> None:
    if inside is not None:
        await claimed.let_out(task, EgressPass(inside.user, inside.password, {"MARK": "set"}))
    await claimed.prepare(task, [], [], install=False)


async def test_a_command_gets_out(
    worker: WorkerProcess, claimed: HttpWorker, index: PackageIndex
) -> None:
    async with admitted(gateway(index.host), worker.directory, "t") as inside:
        await prepare(claimed, inside)
        answer = await run(claimed, "t", f"curl -sS {shlex.quote(f'{index.url}{PACKAGE}/')}")
        refused = await run(claimed, "t", "curl -sS http://example.org/; echo $MARK")

    assert WHEEL in answer
    assert "example.org is not allowed" in refused
    assert "set" in refused
    assert inside.whats() == ["reached", "refused", "used"]


async def test_tasks_have_credentials_of_their_own(
    worker: WorkerProcess, claimed: HttpWorker
) -> None:
    way = gateway()
    async with (
        admitted(way, worker.directory, "a") as a,
        admitted(way, worker.directory, "b") as b,
    ):
        await prepare(claimed, a, "a")
        await prepare(claimed, b, "b")
        await prepare(claimed, None, "c")
        await run(claimed, "b", "curl -sS http://example.org/")
        assert "http_proxy" not in await run(claimed, "c", "env")

    assert a.whats() == []
    assert b.whats() == ["refused", "used"]


async def test_the_way_is_closed_without_a_task(worker: WorkerProcess, claimed: HttpWorker) -> None:
    async with admitted(gateway(), worker.directory, "t") as inside:
        await prepare(claimed, inside)

    answer = await run(claimed, "t", "curl -sS -i http://example.org/")

    assert "502 The way out of this container is closed" in answer


async def test_the_next_orchestrator_takes_over(
    worker: WorkerProcess, claimed: HttpWorker, index: PackageIndex
) -> None:
    """Its socket takes the old one's place; the worker need not be told."""
    for _ in range(2):
        async with admitted(gateway(index.host), worker.directory, "t") as inside:
            await prepare(claimed, inside)
            assert WHEEL in await run(claimed, "t", f"curl -sS {index.url}{PACKAGE}/")


async def test_a_bad_pass_is_refused(worker: WorkerProcess, claimed: HttpWorker) -> None:
    async with worker.client() as client:
        for body in ("no", {"user": "u"}, {"user": "u", "password": "p", "variables": {"A": 1}}):
            answer: httpx2.Response = await client.put("/tasks/t/pass", json=body)
            assert answer.status_code == 400, body


def test_the_variables() -> None:
    variables = proxy_variables(3128, GIVEN)

    assert variables["HTTPS_PROXY"] == "http://task%201:p%40ss%3Aword@127.0.0.1:3128"
    assert {name.lower() for name in variables} == {
        "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    }  # fmt: skip
    assert len(variables) == 8
    assert "localhost" in variables["no_proxy"].split(",")


def test_maven_gets_options(tmp_path: Path) -> None:
    way_out = WayOut(tmp_path)
    way_out.grant("t", GIVEN)

    options = way_out.variables("t")["MAVEN_OPTS"].split()

    assert "-Dhttps.proxyHost=127.0.0.1" in options
    assert "-Dhttp.proxyPort=0" in options


def test_apt_finds_its_directories(tmp_path: Path) -> None:
    place = tmp_path / "apt"
    way_out = WayOut(tmp_path, Apt(place))
    sources = Pass("t", "p", {SOURCES: "deb http://deb.test/ x main\n"})
    assert way_out.variables("t") == {}
    way_out.grant("t", sources)

    variables = way_out.variables("t")

    if shutil.which("apt-get") is None:
        assert "APT_CONFIG" not in variables
        return
    assert variables["APT_CONFIG"] == str(place / "apt.conf")
    assert variables["PATH"].endswith(f":{place}/root/usr/games")
    assert SOURCES not in variables
    said = subprocess.run(
        ["apt-config", "shell", "STATE", "Dir::State/f", "STATUS", "Dir::State::status/f"],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"STATE='{place}/state'" in said
    assert f"STATUS='{place}/dpkg/status'" in said


def test_certificates_are_used_where_there_are_any(tmp_path: Path) -> None:
    way_out = WayOut(tmp_path)
    assert way_out.variables("t") == {}
    way_out.grant("t", GIVEN)
    assert "SSL_CERT_FILE" not in way_out.variables("t")
    (tmp_path / "certificates.pem").write_text("x")
    assert way_out.variables("t")["SSL_CERT_FILE"] == str(tmp_path / "certificates.pem")
    assert way_out.variables("t")["PIP_INDEX_URL"] == "http://index.test/"


async def test_both_halves_of_a_connection_end_on_their_own(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read()
        writer.write(said[::-1])
        await writer.drain()
        writer.close()

    with short_directory() as directory:
        server = await asyncio.start_unix_server(answer, str(directory / "s"))
        forwarder = Forwarder(directory / "s")
        port = await forwarder.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"olleh"
        writer.close()
        open_reader, open_writer = await asyncio.open_connection("127.0.0.1", port)
        open_writer.write(b"x")
        await open_writer.drain()
        await forwarder.close()
        with suppress(ConnectionResetError):
            assert await open_reader.read() == b""
        open_writer.close()
        server.close()


async def test_both_directions_at_once_and_far_more_than_fits(tmp_path: Path) -> None:
    """Neither direction waits for the other, and nothing is lost or turned round."""
    size = 8 * 2**20

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
        writer.close()

    with short_directory() as directory:
        server = await asyncio.start_unix_server(echo, str(directory / "s"))
        forwarder = Forwarder(directory / "s")
        reader, writer = await asyncio.open_connection("127.0.0.1", await forwarder.start())
        sent = os.urandom(size)

        async def send() -> None:
            writer.write(sent)
            await writer.drain()
            writer.write_eof()

        _, received = await asyncio.gather(send(), reader.read(-1))
        assert received == sent
        writer.close()
        await forwarder.close()
        server.close()
