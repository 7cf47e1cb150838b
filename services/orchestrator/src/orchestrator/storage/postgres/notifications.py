"""Wakes the readers of events, and brings live text: one LISTEN connection for the process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import structlog

from orchestrator.errors import DatabaseUnavailable
from orchestrator.storage.postgres.pool import Database, DriverError

CHANNEL = "berth_events"

_HEARTBEAT_SECONDS = 15.0
_HEARTBEAT_TIMEOUT_SECONDS = 5.0
# An outage longer than their sum (about a minute) is reported to the readers.
_RECONNECT_DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, *(10.0,) * 5)


class Wakeup:
    """Tells one reader that its task may have new events.

    It is a flag and not a queue: however slow its reader, it holds nothing.
    """

    def __init__(self) -> None:
        self._flag = asyncio.Event()
        self._failure: DatabaseUnavailable | None = None
        self._missed = False
        self.newest = 0
        """The highest number of an event that was told of."""

    def tell(self, number: int) -> None:
        """Wake the reader for an event."""
        self.newest = max(self.newest, number)
        self._flag.set()

    def set(self, failure: DatabaseUnavailable | None = None) -> None:
        """Wake the reader since events may have been missed, or with an error if all will be."""
        self._missed = True
        self._failure = failure
        self._flag.set()

    def clear(self) -> bool:
        """Forget earlier news, since the reader is about to look; an error stays.

        Returns:
            Whether there may be events that were not told of.
        """
        missed, self._missed = self._missed, False
        if self._failure is None:
            self._flag.clear()
        return missed

    async def wait(self) -> None:
        """Wait for news since the last `clear`.

        Raises:
            DatabaseUnavailable: Postgres was away for too long.
        """
        await self._flag.wait()
        if self._failure is not None:
            raise self._failure


class Notifications:
    """Hands Postgres's notifications to the readers of the tasks they name.

    The connection is made for the first reader and kept until `close`. After a break it is made
    again and every reader is woken, since notifications may have been missed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._readers: dict[str, set[Wakeup]] = {}
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._others: dict[str, Callable[[str], None]] = {}

    def hear(self, channel: str, heard: Callable[[str], None]) -> None:
        """Listen on another channel too, on the same connection, so that the order is kept.

        Args:
            channel: Its name.
            heard: Gets each payload; it must neither wait nor raise.
        """
        self._others[channel] = heard

    @asynccontextmanager
    async def wakeups(self, task_id: str) -> AsyncIterator[Wakeup]:
        """Wake-ups for a task's events, from the moment this is entered on.

        Raises:
            DatabaseUnavailable: Postgres does not answer.
        """
        wakeup = Wakeup()
        self._readers.setdefault(task_id, set()).add(wakeup)
        try:
            await self._ensure_listening(wakeup)
            yield wakeup
        finally:
            readers = self._readers[task_id]
            readers.discard(wakeup)
            if not readers:
                del self._readers[task_id]

    async def close(self) -> None:
        """End listening; readers that still wait are told that the database is gone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._wake_all(DatabaseUnavailable("The service is shutting down: ask again later."))

    async def _ensure_listening(self, wakeup: Wakeup) -> None:
        if self._task is None or self._task.done():
            self._listening.clear()
            self._task = asyncio.create_task(self._run())
        if not self._listening.is_set():
            # Listening begins, and so does failing to, with waking everyone.
            await wakeup.wait()

    async def _run(self) -> None:
        try:
            while True:
                connection = await self._connect()
                try:
                    await self._listen(connection)
                finally:
                    self._listening.clear()
                    connection.terminate()
                structlog.get_logger().warning("postgres.notifications_lost")
        except DatabaseUnavailable as error:
            self._wake_all(error)

    async def _connect(self) -> asyncpg.Connection:
        for delay in _RECONNECT_DELAYS:
            try:
                return await self._database.connect()
            except DatabaseUnavailable as error:
                structlog.get_logger().warning("postgres.reconnecting", detail=error.detail)
            await asyncio.sleep(delay)
        return await self._database.connect()

    async def _listen(self, connection: asyncpg.Connection) -> None:
        """Listen until the connection breaks."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _connection: lost.set())
        try:
            await connection.add_listener(CHANNEL, self._on_notification)
            for channel in self._others:
                await connection.add_listener(channel, self._on_other)
            self._listening.set()
            self._wake_all()
            while not lost.is_set():
                try:
                    await asyncio.wait_for(lost.wait(), _HEARTBEAT_SECONDS)
                except TimeoutError:
                    # A peer that vanished without a word shows only when it is asked something.
                    await connection.execute("SELECT 1", timeout=_HEARTBEAT_TIMEOUT_SECONDS)
        except DriverError as error:
            structlog.get_logger().warning("postgres.notifications_broken", reason=str(error))

    def _on_notification(
        self, _connection: object, _pid: int, _channel: str, payload: object
    ) -> None:
        task_id, _, number = str(payload).rpartition(":")
        for wakeup in self._readers.get(task_id, ()):
            wakeup.tell(int(number))

    def _on_other(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        self._others[channel](str(payload))

    def _wake_all(self, failure: DatabaseUnavailable | None = None) -> None:
        for readers in self._readers.values():
            for wakeup in readers:
                wakeup.set(failure)
