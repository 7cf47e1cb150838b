"""Answers in a worker's place: tools share its user and can take its socket."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.worker_process import container_at, short_directory

from orchestrator.domain.container import Endpoint
from orchestrator.errors import BerthError, WorkerUnreachable
from orchestrator.workers import transport
from orchestrator.workers.client import HttpWorker, HttpWorkers

Answer = Callable[[str, bytes], bytes]
CHUNKS = 64


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@asynccontextmanager
async def liar(place: Path, answer: Answer, repeated: bytes = b"") -> AsyncIterator[HttpWorker]:
    """A worker that gives the answer made of path and body, then sends `repeated` for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(
                (int(line[15:]) for line in head.splitlines() if line[:15] == "content-length:"), 0
            )
            writer.write(answer(head.split()[1], await reader.readexactly(length)))
            await writer.drain()
            while repeated:
                writer.write(repeated * CHUNKS)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    path = place / "worker.sock"
    async with await asyncio.start_unix_server(serve, str(path)):
        worker = HttpWorker(container_at(Endpoint(path, "http://worker")), "key")
        try:
            yield worker
        finally:
            await worker.close()


def head(kind: str, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


def result(body: bytes, text: str) -> bytes:
    content = [{"type": "text", "text": text}]
    said = {"content": content, "resultType": "complete"}
    answer = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": said}
    return json.dumps(answer).encode()


async def call(worker: HttpWorker) -> str:
    async with asyncio.timeout(60), worker.toolbox("t") as toolbox:
        return (await toolbox.call("bash", {"command": "true"})).text


async def test_an_answer_that_is_one_is_taken(place: Path) -> None:
    def answer(_: str, body: bytes) -> bytes:
        return head("application/json") + result(body, "done")

    async with liar(place, answer) as worker:
        assert await call(worker) == "done"


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br", "unheard-of"])
async def test_compressed_answers_are_refused_unread(place: Path, encoding: str) -> None:
    def answer(_: str, body: bytes) -> bytes:
        packed = gzip.compress(result(body or b'{"id": 1}', "done"))
        return head("application/json", f"Content-Encoding: {encoding}") + packed

    async with liar(place, answer) as worker:
        with pytest.raises(WorkerUnreachable):
            await call(worker)
        with pytest.raises(WorkerUnreachable):
            await worker.claim()
        with pytest.raises(WorkerUnreachable):
            async for _ in worker.bundle("t", "sample", [], []):
                pass


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain"])
async def test_a_tool_answer_without_end_is_broken_off(
    place: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(transport, "MAX_TOOL_ANSWER_BYTES", 2**20)
    async with liar(place, lambda _path, _body: head(kind) + b"data: ", b"x" * 4096) as worker:
        with pytest.raises(BerthError):
            await call(worker)


async def test_other_answers_without_end_are_broken_off(place: Path) -> None:
    async with liar(place, lambda _path, _body: head("application/json"), b" " * 4096) as worker:
        with pytest.raises(BerthError):
            await worker.claim()


async def test_a_redirect_is_not_followed(place: Path) -> None:
    asked = []

    async def visit(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append("visited")
        writer.close()

    elsewhere = await asyncio.start_server(visit, "127.0.0.1", 0)
    port = elsewhere.sockets[0].getsockname()[1]

    def answer(path: str, _: bytes) -> bytes:
        asked.append(path)
        there = f"http://127.0.0.1:{port}{path}x"
        return f"HTTP/1.1 307 R\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n".encode()

    async with elsewhere, liar(place, answer) as worker:
        with pytest.raises(BerthError):
            await worker.claim()
        with pytest.raises(BerthError):
            await call(worker)
        assert asked == ["/claim", "/tasks/t/mcp"]


async def test_a_deeply_nested_answer_is_none(place: Path) -> None:
    async with liar(place, lambda *_: head("application/json") + b"[" * 2**20) as worker:
        with pytest.raises(BerthError):
            await worker.claim()
        async with worker.toolbox("t") as toolbox:
            assert (await toolbox.call("bash", {})).is_error


async def test_what_is_told_on_is_short(place: Path) -> None:
    def answer(path: str, body: bytes) -> bytes:
        if "outputs" in path:
            return head("application/json") + json.dumps({"path": "x" * 100_000}).encode()
        if "mcp" in path:
            error = {"code": -32603, "message": "x" * 100_000}
            said = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "error": error}
            return head("application/json") + json.dumps(said).encode()
        refusal = json.dumps({"detail": "x" * 100_000}).encode()
        return head("application/json").replace(b"200 OK", b"400 No") + refusal

    async with liar(place, answer) as worker:
        for attempt in (worker.keep_output("t", "o", "text"), worker.claim(), call(worker)):
            with pytest.raises(BerthError) as caught:
                await attempt
            assert len(caught.value.detail) < 10_000


async def test_no_key_is_said_to_what_is_no_socket(place: Path) -> None:
    said = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(await reader.read(1))
        writer.close()

    async with await asyncio.start_unix_server(listen, str(place / "other.sock")):
        link = place / "worker.sock"
        link.symlink_to("other.sock")
        with pytest.raises(WorkerUnreachable):
            await HttpWorkers().connect(container_at(Endpoint(link, "http://worker")), "key")
    assert said == []
