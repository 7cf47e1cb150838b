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
from orchestrator.serve import serve, stopped_by_signals, unless
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


async def run_demo(demo: Demo, screen: Screen) -> bool | None:
    """Run the demo; True if its task succeeded, None if a signal ended it before.

    Raises:
        BerthError: The service cannot start, or refused the task.
    """
    with stopped_by_signals() as stop:
        async with _service(_settings(demo), stop) as http:
            if http is None:
                return None
            return await unless(stop, asyncio.create_task(_show(demo, http, screen)))


async def _show(demo: Demo, http: httpx2.AsyncClient, screen: Screen) -> bool:
    screen.health((await http.get("/health")).json())
    screen.asked(demo.repository, demo.query)
    result = await _orchestrate(demo, http, screen)
    screen.result(result, (await http.get("/containers")).json())
    return result["status"] == "succeeded"


def _settings(demo: Demo) -> Settings:
    settings = Settings()
    local = (Path(demo.repository),) if demo.repository.startswith("/") else ()
    return settings.model_copy(
        update={
            "data_dir": demo.data_dir,
            "database_url": None,  # a running service may use that one
            "port": 0,
            "runtime": demo.runtime,
            "deployment": f"demo-{os.getpid()}",
            "allow_paths": (*settings.allow_paths, *local),
        }
    )


@asynccontextmanager
async def _service(
    settings: Settings, stop: asyncio.Event
) -> AsyncIterator[httpx2.AsyncClient | None]:
    """The service on a free port, and a client to it; None if it was stopped as it started."""
    addresses: asyncio.Queue[str] = asyncio.Queue()
    serving = asyncio.create_task(
        serve(settings, stop, addresses.put_nowait, keep_containers=False)
    )
    ready = asyncio.create_task(addresses.get())
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if not ready.done():
            yield None
            return
        async with httpx2.AsyncClient(
            base_url=ready.result(), timeout=settings.max_seconds, trust_env=False
        ) as http:
            yield http
    finally:
        ready.cancel()
        stop.set()
        await serving  # raises why the service could not start


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
