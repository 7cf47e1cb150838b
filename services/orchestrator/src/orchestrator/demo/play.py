"""Start the service, give it one task over its own API, follow the task, stop the service."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from pydantic import JsonValue

from orchestrator.demo.screen import Screen
from orchestrator.errors import BerthError
from orchestrator.serve import serve
from orchestrator.settings import RuntimeChoice, Settings

Json = dict[str, JsonValue]
OK = 200


@dataclass(frozen=True, slots=True)
class Demo:
    """What to show: a query on a repository, with all state under `data_dir`."""

    repository: str
    query: str
    runtime: RuntimeChoice
    data_dir: Path


async def run_demo(demo: Demo, screen: Screen) -> bool:
    """Run the demo; True if its task succeeded.

    Raises:
        BerthError: The service cannot start, or refused the task.
    """
    async with _service(_settings(demo)) as http:
        screen.health((await http.get("/health")).json())
        screen.asked(demo.repository, demo.query)
        result = await _orchestrate(demo, http, screen)
        containers = (await http.get("/containers")).json()
    screen.result(result, containers)
    return result["status"] == "succeeded"


def _settings(demo: Demo) -> Settings:
    local = _local_path(demo.repository)
    settings = Settings()
    return settings.model_copy(
        update={
            "data_dir": demo.data_dir,
            "port": 0,
            "runtime": demo.runtime,
            "deployment": f"demo-{os.getpid()}",
            "allow_paths": (*settings.allow_paths, *([local] if local else [])),
        }
    )


def _local_path(repository: str) -> Path | None:
    path = Path(repository.removeprefix("file://"))
    return path.resolve() if path.is_absolute() else None


@asynccontextmanager
async def _service(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """The service on a free port, and a client to it; its containers are removed at the end."""
    addresses: asyncio.Queue[str] = asyncio.Queue()
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, addresses.put_nowait, stop))
    ready = asyncio.create_task(addresses.get())
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        ready.cancel()
        await serving  # raises why the service cannot start
    try:
        async with httpx2.AsyncClient(
            base_url=ready.result(), timeout=settings.max_seconds, trust_env=False
        ) as http:
            try:
                yield http
            finally:
                await _remove_containers(http)
    finally:
        stop.set()
        await serving


async def _remove_containers(http: httpx2.AsyncClient) -> None:
    for container in (await http.get("/containers")).json():
        await http.delete(f"/containers/{container['name']}")


async def _orchestrate(demo: Demo, http: httpx2.AsyncClient, screen: Screen) -> Json:
    body = {"query": demo.query, "repo_url": demo.repository}
    headers = {"Accept": "text/event-stream"}
    async with http.stream("POST", "/orchestrate", json=body, headers=headers) as response:
        if response.status_code != OK:
            problem = json.loads(await response.aread())
            raise BerthError(problem["detail"])
        async for name, data in _frames(response):
            if name == "result":
                return data
            screen.event(name, data)
    raise BerthError("The service ended the stream before the task's result.")


async def _frames(response: httpx2.Response) -> AsyncIterator[tuple[str, Json]]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
