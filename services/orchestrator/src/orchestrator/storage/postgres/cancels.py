"""Requests to cancel tasks, as every orchestrator hears of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import structlog

from orchestrator.errors import DatabaseUnavailable
from orchestrator.storage.postgres.pool import Database, DriverError
from orchestrator.storage.postgres.queries import load_queries

CHANNEL = "berth_cancels"

_HEARTBEAT_SECONDS = 15.0
_HEARTBEAT_TIMEOUT_SECONDS = 5.0
# The last one is repeated: a cancel is heard that long after the database is back, at most.
_RECONNECT_DELAYS = (0.0, 0.05, 0.1, 0.2, 0.5)


class PostgresCancels:
    """`ports.Cancels` by LISTEN/NOTIFY on a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = load_queries()

    async def follow(self) -> AsyncIterator[str]:
        """Ids of tasks to be cancelled: those asked for already, then each as it is asked for.

        A break in the connection is mended; what was asked for meanwhile is read from the table.
        """
        attempt = 0
        while True:
            try:
                async with self._listening() as heard:
                    for row in await self._database.rows(self._queries.requested_cancels):
                        yield str(row["id"])
                    attempt = 0
                    while (task_id := await heard()) is not None:
                        yield task_id
                reason = "the connection ended"
            except (DatabaseUnavailable, *DriverError) as error:
                reason = type(error).__name__
            if attempt == 0:
                structlog.get_logger().warning("cancels_not_heard", reason=reason)
            await asyncio.sleep(_RECONNECT_DELAYS[min(attempt, len(_RECONNECT_DELAYS) - 1)])
            attempt += 1

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[Callable[[], Awaitable[str | None]]]:
        """Listen; gives what waits for the next id, or for None once the connection is lost."""
        news: asyncio.Queue[str | None] = asyncio.Queue()

        def on_notification(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            news.put_nowait(str(payload))

        connection = await self._database.connect()

        async def heard() -> str | None:
            while True:
                try:
                    return await asyncio.wait_for(news.get(), _HEARTBEAT_SECONDS)
                except TimeoutError:
                    await _require_alive(connection)

        try:
            connection.add_termination_listener(lambda _connection: news.put_nowait(None))
            await connection.add_listener(CHANNEL, on_notification)
            yield heard
        finally:
            connection.terminate()


async def _require_alive(connection: asyncpg.Connection) -> None:
    """A peer that vanished without a word shows only when it is asked something."""
    await connection.execute("SELECT 1", timeout=_HEARTBEAT_TIMEOUT_SECONDS)
