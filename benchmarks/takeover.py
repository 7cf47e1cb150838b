"""How fast the tasks of a killed orchestrator are another's."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx2

from benchmarks.figures import Figure, figure
from benchmarks.house import House
from benchmarks.service import Served, service
from orchestrator.domain.fleet import lapse
from orchestrator.settings import RuntimeChoice

HEARTBEAT_SECONDS = 1.0
TARGET_BEATS = 3
MILLISECONDS = 1_000.0
POLL_SECONDS = 0.01
SECONDS = 60.0
HOLDER = "SELECT executor_id FROM leases JOIN tasks USING (workspace_id) WHERE id = $1 AND held"
# Both have been heard for long enough to judge each other.
HEARD = f"""
SELECT FROM executors WHERE heartbeat_at > now() - interval '{2 * HEARTBEAT_SECONDS} seconds'
AND heartbeat_at - started_at > interval '{lapse(HEARTBEAT_SECONDS) + HEARTBEAT_SECONDS} seconds'
HAVING count(*) = 2
"""


async def takeover(parts: House, directory: Path, choice: RuntimeChoice, rounds: int) -> Figure:
    """From the kill of an orchestrator until another holds the lease of what it had."""
    samples = []
    async with _silent_model() as model_url:
        settings = {
            "GPT_OSS_URL": model_url,
            "BERTH_DEPLOYMENT": "benchmarks-takeover",
            "BERTH_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
        }
        for number in range(rounds):
            root = directory / f"takeover-{number}"
            async with service(root / "one", choice, parts.database_url, settings) as one:
                task_id = await _begun(one)
                await _until(parts, HOLDER, task_id)
                async with service(root / "other", choice, parts.database_url, settings):
                    await _until(parts, HEARD)
                    samples.append(await _taken(parts, one, task_id))
    silence = ("the silence that counts as death", lapse(HEARTBEAT_SECONDS) * MILLISECONDS)
    target = TARGET_BEATS * HEARTBEAT_SECONDS * MILLISECONDS
    return figure("kill to takeover, 1 s heartbeat", "ms", samples, target=target, floor=silence)


async def _taken(parts: House, one: Served, task_id: str) -> float:
    before = await _until(parts, HOLDER, task_id)
    began = time.perf_counter()
    one.kill()
    async with asyncio.timeout(SECONDS):
        while await _until(parts, HOLDER, task_id) == before:
            await asyncio.sleep(POLL_SECONDS)
    return (time.perf_counter() - began) * MILLISECONDS


async def _begun(one: Served) -> str:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{one.port}") as http:
        response = await http.post(
            "/orchestrate", json={"query": "Wait."}, headers={"Prefer": "respond-async"}
        )
        task_id: str = response.raise_for_status().json()["task_id"]
    return task_id


async def _until(parts: House, statement: str, *arguments: object) -> object:
    """The first field of a statement's first row, as soon as there is a row."""
    connection = await asyncpg.connect(parts.database_url)
    try:
        async with asyncio.timeout(SECONDS):
            while not (rows := await connection.fetch(statement, *arguments)):
                await asyncio.sleep(POLL_SECONDS)
    finally:
        await connection.close()
    return next(iter(rows[0].values()), None)


@asynccontextmanager
async def _silent_model() -> AsyncIterator[str]:
    """An endpoint that never answers, so that a task stays under way."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.close()
