"""What becomes of the engine's failures, and of a client that is configured wrongly."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from orchestrator.errors import RuntimeFailure, RuntimeUnavailable
from orchestrator.runtimes.docker_engine import DockerEngine

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(status: str) -> Answer:
    """An engine that knows its version, and has this status for all else."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        is_version = b"/version" in head.partition(b"\r\n")[0]
        value = {"ApiVersion": "1.41"} if is_version else {"message": "The engine is away."}
        body, first = json.dumps(value), "200 OK" if is_version else status
        text = f"HTTP/1.1 {first}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        writer.write(f"{text}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    return answer


@pytest.mark.parametrize(
    ("status", "is_away"),
    [
        ("502 Bad", True),
        ("503 No", True),
        ("504 Late", True),
        ("500 Error", False),
        ("403 No", False),
    ],
)
async def test_a_proxy_without_an_engine_is_no_engine(
    passable_directory: Path, monkeypatch: pytest.MonkeyPatch, status: str, is_away: bool
) -> None:
    socket = passable_directory / "engine"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    engine = DockerEngine()
    async with await asyncio.start_unix_server(answering(status), str(socket)):
        with pytest.raises(RuntimeFailure, match=r"The engine is away\.") as caught:
            await engine.call(lambda client: client.info())
    assert isinstance(caught.value, RuntimeUnavailable) is is_away
    await engine.close()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[1]",
        "5",
        "null",
        '"x"',
        '{"auths": ["x"]}',
        '{"auths": {"x": 5}}',
        '{"auths": {"x": {"auth": "%%%"}}}',
        '{"auths": {"x": {"auth": 5}}}',
        '{"proxies": []}',
        '{"proxies": {"default": "x"}}',
        '{"HttpHeaders": "x"}',
        '{"HttpHeaders": {"a": 5}}',
    ],
)
async def test_a_malformed_configuration_of_docker_is_named(
    passable_directory: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    socket, file = passable_directory / "engine", passable_directory / "config.json"
    file.write_text(text)
    monkeypatch.setenv("DOCKER_CONFIG", str(passable_directory))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    engine = DockerEngine()
    async with await asyncio.start_unix_server(answering("200 OK"), str(socket)):
        with pytest.raises(RuntimeUnavailable, match=f"configuration file {file} is malformed"):
            await engine.call(lambda client: client.info())
    await engine.close()


@pytest.mark.parametrize("text", ["{", "", '{"auths": {}}', '{"HttpHeaders": {"a": "b"}}'])
async def test_what_docker_can_live_with_is_no_problem(
    passable_directory: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    socket = passable_directory / "engine"
    (passable_directory / "config.json").write_text(text)
    monkeypatch.setenv("DOCKER_CONFIG", str(passable_directory))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    engine = DockerEngine()
    async with await asyncio.start_unix_server(answering("200 OK"), str(socket)):
        assert await engine.call(lambda client: client.info()) is not None
    await engine.close()
