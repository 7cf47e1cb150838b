"""Requests to cancel tasks, as every orchestrator hears of them."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import structlog

from orchestrator.errors import DatabaseUnavailable
from orchestrator.storage.postgres.pool import Database, DriverError
from orchestrator.storage.postgres.queries import load_queries

CHANNEL = "berth_cancels"

_HEARTBEAT_SECONDS = 15.0
_HEARTBEAT_TIMEOUT_SECONDS = 5.0
_RECONNECT_SECONDS = 1.0


class PostgresCancels:
    """`ports.Cancels` by LISTEN/NOTIFY on a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = load_queries()

    async def follow(self) -> AsyncIterator[str]:
        """Ids of tasks to be cancelled: those asked for already, then each as it is asked for.

        A break in the connection is mended; what was asked for meanwhile is read from the table.
        """
        while True:
            try:
                async for task_id in self._listen():
                    yield task_id
            except (DatabaseUnavailable, *DriverError) as error:
                structlog.get_logger().warning("cancels_not_heard", reason=type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> AsyncIterator[str]:
        """The same until the connection breaks."""
        heard: asyncio.Queue[str] = asyncio.Queue()

        def on_notification(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            heard.put_nowait(str(payload))

        connection = await self._database.connect()
        try:
            await connection.add_listener(CHANNEL, on_notification)
            for row in await self._database.rows(self._queries.requested_cancels):
                yield str(row["id"])
            while True:
                try:
                    yield await asyncio.wait_for(heard.get(), _HEARTBEAT_SECONDS)
                except TimeoutError:
                    await _require_alive(connection)
        finally:
            connection.terminate()


async def _require_alive(connection: asyncpg.Connection) -> None:
    """A peer that vanished without a word shows only when it is asked something."""
    await connection.execute("SELECT 1", timeout=_HEARTBEAT_TIMEOUT_SECONDS)
