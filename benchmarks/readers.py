"""How long an event takes to its readers when a hundred follow one task."""

import asyncio
import re
import secrets
import time
from pathlib import Path

import asyncpg

from benchmarks.figures import Figure
from benchmarks.house import House, add_task
from benchmarks.service import service
from orchestrator.domain.budget import Budget
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.task import NewTask
from orchestrator.settings import RuntimeChoice

READERS = 100
PAUSE_SECONDS = 0.25
SECONDS = 60.0
MILLISECONDS = 1_000.0
TARGET = 50.0
PERCENTILE = 0.95
CHANNEL = "benchmark_floor"

_NUMBER = re.compile(rb'"n": (\d+)\}')


class _Reader(asyncio.Protocol):
    """Follows a task and notes when each event has come."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._rest = b""
        self.came: dict[int, float] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the task's events."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a connection that cannot be written to")
        path = f"/tasks/{self._task_id}/events"
        transport.write(f"GET {path} HTTP/1.1\r\nHost: benchmark\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Note the events in it."""
        now = time.perf_counter()
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            found = _NUMBER.search(line)
            if found:
                self.came[int(found[1])] = now


async def readers(parts: House, directory: Path, choice: RuntimeChoice, rounds: int) -> Figure:
    """From `append` in one process to a reader's socket in another, by way of the service."""
    count = rounds * 5
    settings = {"BERTH_DEPLOYMENT": "benchmarks-readers"}
    async with service(directory / "readers", choice, parts.database_url, settings) as served:
        task = NewTask(secrets.token_hex(8), "measure", parts.workspace, (), (), Budget(1, 1, 1.0))
        await add_task(parts, task)
        loop = asyncio.get_running_loop()
        connections = [
            await loop.create_connection(lambda: _Reader(task.id), "127.0.0.1", served.port)
            for _ in range(READERS)
        ]
        following = [reader for _, reader in connections]
        sent = {0: await _append(parts, task.id, 0)}
        await _until_came(following, 0)
        floors = []
        for number in range(1, count + 1):
            floors.append(await _floor_of_notify(parts))
            sent[number] = await _append(parts, task.id, number)
            await asyncio.sleep(PAUSE_SECONDS)
        await _until_came(following, count)
        await parts.events.append(task.id, NewEvent(EventKind.FINISHED, 0, {}))
        for transport, _ in connections:
            transport.close()
    samples = sorted(
        (reader.came[number] - sent[number]) * MILLISECONDS
        for reader in following
        for number in range(1, count + 1)
    )
    return Figure(
        name=f"event to {READERS} readers, 95 of 100",
        unit="ms",
        value=samples[int(len(samples) * PERCENTILE)],
        target=TARGET,
        floor=sorted(floors)[int(len(floors) * PERCENTILE)],
        floor_name="NOTIFY to one LISTEN, 95 of 100",
        samples=tuple(samples),
    )


async def _append(parts: House, task_id: str, number: int) -> float:
    began = time.perf_counter()
    await parts.events.append(task_id, NewEvent(EventKind.NOTICE, 0, {"n": number}))
    return began


async def _until_came(following: list[_Reader], number: int) -> None:
    async with asyncio.timeout(SECONDS):
        while not all(number in reader.came for reader in following):
            await asyncio.sleep(PAUSE_SECONDS)


async def _floor_of_notify(parts: House) -> float:
    heard = asyncio.Event()
    listener = await asyncpg.connect(parts.database_url)
    sender = await asyncpg.connect(parts.database_url)
    try:
        await listener.add_listener(CHANNEL, lambda *_: heard.set())
        began = time.perf_counter()
        await sender.execute(f"NOTIFY {CHANNEL}")
        await heard.wait()
        return (time.perf_counter() - began) * MILLISECONDS
    finally:
        await listener.close()
        await sender.close()
