"""A task is watched as it happens, and its record read again."""

import asyncio

import httpx2
import pytest
from tests.support.repositories import SourceRepository
from tests.support.tasks import Frame, events_of, frames, succeed

STREAM = {"Accept": "text/event-stream"}
WRITE = "Write a function slugify(text) and a test for it."


async def test_a_task_streams_its_events_and_then_its_result(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    body = {"query": WRITE, "repo_url": str(sample.path)}
    async with http.stream("POST", "/orchestrate", json=body, headers=STREAM) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        seen = [frame async for frame in frames(response)]

    names = [frame.name for frame in seen]
    tools = ["model", "tool"] * 3
    assert names == ["accepted", "container", "prepared", *tools, "model", "finished", "result"]
    assert [frame.id for frame in seen] == [*map(str, range(1, len(seen))), ""]
    assert [frame.data["step"] for frame in seen[3:10]] == [1, 2, 3, 4, 5, 6, 7]
    result = seen[-1].data
    assert result == (await http.get(f"/tasks/{result['task_id']}")).json()
    assert seen[-2].data["status"] == result["status"] == "succeeded"
    assert await events_of(http, result["task_id"]) == seen[:-1]


async def test_events_tell_what_happened(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    result = await succeed(http, "Run: echo hello", repo_url=str(sample.path))
    events = {frame.name: frame.data for frame in await events_of(http, result["task_id"])}

    assert events["accepted"]["workspace"] == result["workspace"]["id"]
    assert events["container"]["name"] == result["workspace"]["container"]
    assert events["tool"]["name"] == "bash"
    assert "echo hello" in events["tool"]["arguments"]
    assert "hello" in events["tool"]["result"]
    assert events["tool"]["is_error"] is False
    assert events["finished"]["stop_reason"] == "answered"


@pytest.mark.parametrize("after", [0, 1, 4, 5, 6, 7, 999_999_999])
async def test_a_stream_resumes_after_the_last_event(
    http: httpx2.AsyncClient, sample: SourceRepository, after: int
) -> None:
    result = await succeed(http, "Run: true", repo_url=str(sample.path))
    everything = await events_of(http, result["task_id"])

    assert len(everything) == 7
    assert await events_of(http, result["task_id"], after) == everything[after:]


async def test_a_running_task_is_followed_by_several(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    body = {"query": "Run: sleep 0.5", "repo_url": str(sample.path)}
    async with http.stream("POST", "/orchestrate", json=body, headers=STREAM) as response:
        stream = frames(response)
        first = await anext(stream)
        container = await anext(stream)
        task_id = await _task_id(http, first)
        running = (await http.get(f"/tasks/{task_id}")).json()
        late = asyncio.create_task(events_of(http, task_id, after=1))
        rest = [frame async for frame in stream]

    assert running["status"] == "running"
    assert running["receipt"] is None
    assert await late == [container, *rest[:-1]]


async def test_a_caller_that_goes_away_does_not_end_its_task(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    body = {"query": "Run: sleep 0.3; echo done", "repo_url": str(sample.path)}
    async with http.stream("POST", "/orchestrate", json=body, headers=STREAM) as response:
        task_id = await _task_id(http, await anext(frames(response)))

    last = (await events_of(http, task_id))[-1]
    assert last.name == "finished"
    assert "done" in (await http.get(f"/tasks/{task_id}")).json()["answer"]


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "²", "99999999999999999999"])
async def test_a_wrong_event_id_is_refused(
    http: httpx2.AsyncClient, sample: SourceRepository, number: str
) -> None:
    result = await succeed(http, "Run: true", repo_url=str(sample.path))
    headers = {b"Last-Event-ID": number.encode("latin-1")}
    refused = await http.get(f"/tasks/{result['task_id']}/events", headers=headers)

    assert refused.status_code == 422
    assert refused.json()["code"] == "invalid_request"


async def _task_id(http: httpx2.AsyncClient, accepted: Frame) -> str:
    assert accepted.name == "accepted"
    return str(accepted.data["task_id"])
