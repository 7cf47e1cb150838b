"""What the model says is heard while it says it."""

import asyncio
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx2
from tests.acceptance.conftest import SANDBOX_ONLY
from tests.support.repositories import SourceRepository
from tests.support.service import Service
from tests.support.tasks import Frame, all_frames, begun, events_of

pytestmark = SANDBOX_ONLY
STREAM = {"Accept": "text/event-stream"}
TELL = "Run, then tell a story: true"
SECONDS = 30.0
STEP = 3


def spoken(frames: list[Frame]) -> str:
    """The text in them, which must be one attempt's, without a gap."""
    text = ""
    for frame in frames:
        assert frame.data["offset"] == len(text)
        text += frame.data["text"]
    assert len({frame.data["attempt"] for frame in frames}) == 1
    return text


async def test_the_text_of_a_step_comes_in_pieces_before_its_event(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    body = {"query": TELL, "repo_url": str(sample.path)}
    status = ""
    seen: list[Frame] = []
    async with http.stream("POST", "/orchestrate", json=body, headers=STREAM) as response:
        async for frame in all_frames(response):
            seen.append(frame)
            if frame.name == "text" and not status:
                task = (await http.get(f"/tasks/{frame.data['task_id']}")).json()
                status = f"{task['status']}: {task['answer']}"

    assert status == "running: "
    words = [frame for frame in seen if frame.name == "text"]
    model = next(frame for frame in seen if frame.name == "model" and frame.data["step"] == STEP)
    assert len(words) > 2
    assert {frame.data["step"] for frame in words} == {STEP}
    assert {frame.id for frame in words} == {""}
    assert seen.index(words[-1]) < seen.index(model)
    assert spoken(words) == model.data["text"] == seen[-1].data["answer"]
    assert "They want a story" not in str(seen)
    kept = [frame for frame in seen[:-1] if frame.name != "text"]
    assert await events_of(http, seen[0].data["task_id"]) == kept


async def test_whoever_follows_a_task_hears_it_too(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    task_id = await begun(http, TELL, repo_url=str(sample.path))

    async def follow(after: str) -> list[Frame]:
        headers = {"Last-Event-ID": after}
        async with http.stream("GET", f"/tasks/{task_id}/events", headers=headers) as response:
            return [frame async for frame in all_frames(response)]

    async with asyncio.timeout(SECONDS):
        readers = await asyncio.gather(*(follow(after) for after in ("0", "1", "2")))
    answer = (await http.get(f"/tasks/{task_id}")).json()["answer"]
    for frames in readers:
        assert spoken([frame for frame in frames if frame.name == "text"]) == answer


async def test_readers_that_do_not_read_hold_up_nobody(
    service: Service, http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    loud = "Run, then tell a story: head -c 30000 /dev/zero | tr '\\0' x; sleep 1"
    task_id = await begun(http, loud, repo_url=str(sample.path))
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(_deaf_reader(service.url, task_id))
        async with (
            asyncio.timeout(SECONDS),
            http.stream("GET", f"/tasks/{task_id}/events") as response,
        ):
            frames = [frame async for frame in all_frames(response)]
    assert frames[-1].name == "finished"
    answer = (await http.get(f"/tasks/{task_id}")).json()["answer"]
    assert spoken([frame for frame in frames if frame.name == "text"]) == answer


def _deaf_reader(url: str, task_id: str) -> socket.socket:
    """A connection that asks for a task's events and never takes one."""
    address = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection.connect((address.hostname, address.port))
    connection.sendall(f"GET /tasks/{task_id}/events HTTP/1.1\r\nHost: berth\r\n\r\n".encode())
    return connection
