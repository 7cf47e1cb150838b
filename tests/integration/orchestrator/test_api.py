"""The edge of the API: every error as a problem, bodies within limits, streams that breathe."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import httpx2
import pytest
from fastapi import FastAPI, Request
from starlette.types import Message

from orchestrator import errors
from orchestrator.api import body_limit, sse
from orchestrator.api.body_limit import BodyLimit
from orchestrator.api.problem import MEDIA_TYPE, install_problem_handlers
from orchestrator.domain.events import Event, EventKind
from orchestrator.errors import BerthError

LIMIT = 1_000


def all_errors(error: type[BerthError] = BerthError) -> list[type[BerthError]]:
    below = (each for kind in error.__subclasses__() for each in all_errors(kind))
    return [error, *(each for each in below if each.__module__ == errors.__name__)]


def app_that(act: Callable[[], object]) -> FastAPI:
    """An application with one route that does something."""
    app = FastAPI()
    app.add_middleware(BodyLimit, max_bytes=LIMIT)
    install_problem_handlers(app)

    @app.post("/")
    async def route(request: Request) -> dict[str, int]:
        act()
        return {"bytes": len(await request.body())}

    return app


def client_of(app: FastAPI) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://berth")


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
async def test_every_error_becomes_a_problem(error: type[BerthError]) -> None:
    def act() -> None:
        raise error("What to do.", host="example.org", status=1, code="other")

    async with client_of(app_that(act)) as http:
        response = await http.post("/")

    assert response.status_code == error.status
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.json() == {
        "type": f"urn:berth:{error.code}",
        "status": error.status,
        "code": error.code,
        "detail": "What to do.",
        "host": "example.org",
    }


async def test_a_defect_tells_nothing_of_its_inside() -> None:
    def act() -> None:
        raise RuntimeError("hunter2")

    async with client_of(app_that(act)) as http:
        response = await http.post("/")

    assert response.status_code == 500
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.json()["code"] == "internal_error"
    assert "RuntimeError" in response.json()["detail"]
    assert "hunter2" not in response.text


async def test_text_that_utf_8_cannot_hold_is_told_all_the_same() -> None:
    def act() -> None:
        raise errors.UnknownFile("There is no '\ud800'.", file="\ud800")

    async with client_of(app_that(act)) as http:
        response = await http.post("/")

    assert response.status_code == 422
    assert json.loads(response.content)["file"] == "\ud800"


@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 10 * LIMIT])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_a_body_is_taken_up_to_the_limit(*, size: int, announced: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, size, 300):
            yield b"x" * min(300, size - start)

    content = b"x" * size if announced else chunks()
    async with client_of(app_that(lambda: None)) as http:
        response = await http.post("/", content=content)

    if size <= LIMIT:
        assert response.json() == {"bytes": size}
    else:
        assert response.status_code == 413
        assert response.json()["code"] == "request_too_large"
        assert "1,000 bytes" in response.json()["detail"]


async def test_a_client_that_stops_sending_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(body_limit, "DRAIN_SECONDS", 0.05)
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(60)
        return {}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-length", b"5000")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    await BodyLimit(app_that(lambda: None), LIMIT)(scope, receive, send)

    assert sent[0]["status"] == 413


def event(number: int) -> Event:
    at = datetime(2025, 1, 2, tzinfo=UTC)
    return Event("t1", number, EventKind.TOOL, 3, {"result": "a\nb\r\nü\u2028"}, at)


def test_an_event_is_one_frame_whatever_it_holds() -> None:
    frame = sse.event_frame(event(7))

    assert frame.startswith(b"id: 7\nevent: tool\ndata: {")
    assert frame.endswith(b"}\n\n")
    assert frame.isascii()
    assert len(frame.splitlines()) == 4
    data = json.loads(frame.splitlines()[2].removeprefix(b"data: "))
    assert data == {
        "task_id": "t1",
        "number": 7,
        "step": 3,
        "at": "2025-01-02T00:00:00+00:00",
        "result": "a\nb\r\nü\u2028",
    }


async def test_a_pause_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.02)

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(0.07)
        yield b"second"

    seen = [frame async for frame in sse.with_heartbeats(slow())]

    assert seen[0] == b"first"
    assert seen[-1] == b"second"
    assert seen[1:-1] in ([sse.HEARTBEAT] * 2, [sse.HEARTBEAT] * 3)


async def test_a_reader_that_goes_away_ends_what_it_read() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"frame"
                await asyncio.sleep(0)
        finally:
            ended.set()

    stream = sse.with_heartbeats(endless())
    assert await anext(stream) == b"frame"
    assert await anext(stream) == b"frame"
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator in fact

    await asyncio.wait_for(ended.wait(), 1)


async def test_an_error_reaches_the_reader() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"first"
        raise errors.DatabaseUnavailable("Gone.")

    stream = sse.with_heartbeats(broken())
    assert await anext(stream) == b"first"
    with pytest.raises(errors.DatabaseUnavailable):
        await anext(stream)
