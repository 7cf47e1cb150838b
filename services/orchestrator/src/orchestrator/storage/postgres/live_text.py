"""What models are saying, from the orchestrator of a task to all that have readers of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from orchestrator.domain.live_text import LiveText, joined
from orchestrator.errors import DatabaseUnavailable
from orchestrator.storage.postgres.live_payload import payloads, read_payload
from orchestrator.storage.postgres.notifications import Notifications
from orchestrator.storage.postgres.pool import Database, DriverError
from orchestrator.storage.postgres.queries import load_queries

CHANNEL = "berth_text"
BATCH_SECONDS = 0.04
BATCH_CHARS = 4_096
PENDING_CHARS = 256 * 1024
READER_CHARS = 64 * 1024
FLUSH_SECONDS = 0.25
SEND_SECONDS = 2.0


class PostgresLiveText:
    """`ports.LiveTextChannel` by NOTIFY, without a row written.

    What all tasks of this process say within some milliseconds goes out as one statement, so the
    number of statements does not grow with the number of tasks. While Postgres is away, text is
    dropped.

    Args:
        database: Where to notify.
        notifications: What listens; nobody may have waited for it yet.
    """

    def __init__(self, database: Database, notifications: Notifications) -> None:
        self._database = database
        self._notifications = notifications
        self._notify = load_queries().notify_text
        self._pending: list[LiveText] = []
        self._pending_chars = 0
        self._enough = asyncio.Event()
        self._sending = asyncio.Lock()
        self._sender: asyncio.Task[None] | None = None
        self._readers: dict[str, set[Inbox]] = {}
        notifications.hear(CHANNEL, self._on_payload)

    def publish(self, piece: LiveText) -> None:
        """Send a piece within some 40 ms, or drop it; see `ports.LiveTextChannel.publish`."""
        if self._pending_chars >= PENDING_CHARS:
            return
        self._pending.append(piece)
        self._pending_chars += len(piece.delta.text)
        if self._pending_chars >= BATCH_CHARS:
            self._enough.set()
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_batches())

    async def flush(self, task_id: str) -> None:
        """Send what a task has said so far, in 250 ms at most."""
        waiting = any(piece.task_id == task_id for piece in self._pending)
        if not waiting and not self._sending.locked():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._send()

    @asynccontextmanager
    async def follow(self, task_id: str) -> AsyncIterator["Inbox"]:
        """A reader of a task's text; see `ports.LiveTextChannel.follow`."""
        inbox = Inbox()
        self._readers.setdefault(task_id, set()).add(inbox)
        try:
            async with self._notifications.wakeups(task_id):
                yield inbox
        finally:
            readers = self._readers[task_id]
            readers.discard(inbox)
            if not readers:
                del self._readers[task_id]

    async def close(self) -> None:
        """Stop sending; what is not sent by now is dropped."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])

    async def _send_batches(self) -> None:
        while self._pending:
            with suppress(TimeoutError):
                async with asyncio.timeout(BATCH_SECONDS):
                    await self._enough.wait()
            await self._send()

    async def _send(self) -> None:
        """Send all that is pending, after what is on its way already."""
        async with self._sending:
            pieces, self._pending, self._pending_chars = self._pending, [], 0
            self._enough.clear()
            batch = [each for piece in joined(pieces) for each in payloads(piece)]
            if not batch:
                return
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await self._database.rows(self._notify, batch)
            except (DatabaseUnavailable, TimeoutError, *DriverError) as error:
                structlog.get_logger().warning("live_text_dropped", reason=type(error).__name__)

    def _on_payload(self, payload: str) -> None:
        try:
            piece = read_payload(payload)
        except ValueError:
            structlog.get_logger().warning("live_text_unreadable")
            return
        for inbox in self._readers.get(piece.task_id, ()):
            inbox.put(piece)


class Inbox:
    """`ports.LiveTextReader`: what one reader has not taken yet."""

    def __init__(self) -> None:
        self._pieces: list[LiveText] = []
        self._chars = 0
        self._last: LiveText | None = None
        self._news = asyncio.Event()

    def put(self, piece: LiveText) -> None:
        """Add a piece, if there is room and it is not here already."""
        if self._chars >= READER_CHARS or self._is_known(piece):
            return
        self._pieces.append(piece)
        self._chars += len(piece.delta.text)
        self._last = piece
        self._news.set()

    async def wait(self) -> None:
        """Wait until there is something to take."""
        await self._news.wait()

    def take(self) -> Sequence[LiveText]:
        """What has come since the last time."""
        pieces, self._pieces, self._chars = self._pieces, [], 0
        self._news.clear()
        return joined(pieces)

    def _is_known(self, piece: LiveText) -> bool:
        # A statement whose answer was lost with its connection is sent again.
        last = self._last
        return (
            last is not None
            and (last.step, last.delta.attempt) == (piece.step, piece.delta.attempt)
            and piece.delta.offset <= last.delta.offset
        )
