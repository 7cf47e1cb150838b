"""Give tasks to a service and look at what they did, as a user does."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from tests.support.repositories import SourceRepository, git
from tests.support.sleepers import new_sleep, until_sleeping

OK = 200
ACCEPTED = 202
END_SECONDS = 90.0
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event."""

    name: str
    data: Json
    id: str = ""


async def orchestrate(http: httpx2.AsyncClient, query: str, **body: object) -> Json:
    """Run a task and return its result."""
    response = await http.post("/orchestrate", json={"query": query, **body})
    assert response.status_code == OK, response.text
    result: Json = response.json()
    return result


async def succeed(http: httpx2.AsyncClient, query: str, **body: object) -> Json:
    """Run a task that must succeed."""
    result = await orchestrate(http, query, **body)
    assert result["status"] == "succeeded", result
    return result


async def frames(response: httpx2.Response) -> AsyncIterator[Frame]:
    """The events of a stream that are kept, and its result."""
    async for frame in all_frames(response):
        if frame.name != "text":
            yield frame


async def all_frames(response: httpx2.Response) -> AsyncIterator[Frame]:
    """The events of a stream, with what the model says between them."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "data" in fields:
            yield Frame(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
            fields = {}


@dataclass(slots=True)
class SleepingTask:
    """A task whose command has done its work and now sleeps for long."""

    task_id: str
    container: str
    stream: AsyncIterator[Frame]

    async def result(self) -> Json:
        """Its result, the last frame of the stream."""
        return [frame async for frame in self.stream][-1].data


@asynccontextmanager
async def sleeping_task(
    http: httpx2.AsyncClient, work: str, **body: object
) -> AsyncIterator[SleepingTask]:
    """Run a command in a task and then let it sleep; needs the play `run`."""
    seconds = new_sleep()
    request = {"query": f"Run: {work}; sleep {seconds}", **body}
    headers = {"Accept": "text/event-stream"}
    async with http.stream("POST", "/orchestrate", json=request, headers=headers) as response:
        stream = frames(response)
        container = ""
        async for frame in stream:
            if frame.name == "container":
                container = frame.data["name"]
            if frame.name == "model":
                await until_sleeping(seconds)
                yield SleepingTask(frame.data["task_id"], container, stream)
                return


async def until_ended(http: httpx2.AsyncClient, task_id: str) -> Json:
    """A task once it has ended."""
    async with asyncio.timeout(END_SECONDS):
        while True:
            task: Json = (await http.get(f"/tasks/{task_id}")).json()
            if task["status"] != "running":
                return task
            await asyncio.sleep(0.05)


async def begun(http: httpx2.AsyncClient, query: str, **body: object) -> str:
    """Give a task without waiting for it; returns its id."""
    response = await http.post(
        "/orchestrate", json={"query": query, **body}, headers={"Prefer": "Respond-Async"}
    )
    task_id: str = response.json()["task_id"]
    assert response.status_code == ACCEPTED, response.text
    assert response.headers["location"] == f"/tasks/{task_id}"
    return task_id


async def events_of(
    http: httpx2.AsyncClient, task_id: str, after: int | None = None
) -> list[Frame]:
    """The recorded events of a task that has ended, from a number on."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with http.stream("GET", f"/tasks/{task_id}/events", headers=headers) as response:
        assert response.status_code == OK
        return [frame async for frame in frames(response)]


async def containers(http: httpx2.AsyncClient) -> dict[str, Json]:
    """All containers by name."""
    return {each["name"]: each for each in (await http.get("/containers")).json()}


def applied(result: Json, repository: SourceRepository, commit: str, target: Path) -> Path:
    """A fresh clone at a commit with the result's patch applied, both to index and worktree."""
    git(repository.path.parent, "clone", "--quiet", str(repository.path), str(target))
    git(target, "checkout", "--quiet", commit)
    git(target, "apply", "--index", "--whitespace=nowarn", "-", stdin=result["diff"].encode())
    return target


def changed(target: Path) -> Sequence[str]:
    """What differs from HEAD in a clone, sorted: old and new names of renames both."""
    listed = git(target, "diff", "--cached", "--name-only", "--no-renames", "-z")
    return sorted(filter(None, listed.split("\0")))
