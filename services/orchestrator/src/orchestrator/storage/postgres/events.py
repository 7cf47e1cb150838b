"""The record of what happened in each task, in Postgres."""

import uuid
from collections.abc import AsyncIterator

import asyncpg

from orchestrator.domain.events import Event, EventKind, NewEvent
from orchestrator.errors import StorageFailure
from orchestrator.storage.postgres.notifications import Notifications
from orchestrator.storage.postgres.pool import Database
from orchestrator.storage.postgres.queries import load_queries
from orchestrator.storage.postgres.rows import event_from
from orchestrator.storage.postgres.shared_reads import SharedReads
from orchestrator.storage.postgres.tasks import require_lease, unknown_task
from orchestrator.storage.postgres.text import storable_text

_BATCH = 100
_EVENTS = uuid.UUID("6f2cbb5e-8f0c-5d43-9b53-3a3d5d0a8c11")
"""Namespace of the ids that events are recorded under."""


class PostgresEventLog:
    """`ports.EventLog` on a migrated database.

    Every method may raise `DatabaseUnavailable` when Postgres does not answer, or not in time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = load_queries()
        self._notifications = Notifications(database)
        self._reads = SharedReads(self._read)

    @property
    def notifications(self) -> Notifications:
        """What brings the news of events."""
        return self._notifications

    async def append(self, task_id: str, event: NewEvent, generation: int | None = None) -> Event:
        """Record an event under the task's next number and wake its readers.

        It is recorded once even if the connection breaks on the way. One with a key that is
        recorded already, before a crash, is returned as it stands.

        Raises:
            TaskNotFound: No task has this id.
            StaleLease: The lease is not of this generation any more; nothing is recorded.
            StorageFailure: The task's `finished` event is recorded already.
        """
        task_id = storable_text(task_id)
        append_id = _append_id(task_id, event)
        values = (task_id, event.kind.value, event.step, event.data, append_id, generation)
        try:
            row = await self._database.row(self._queries.append_event, *values)
        except asyncpg.UniqueViolationError:
            row = None
        if row is None and generation is not None:
            await require_lease(self._database, task_id, generation)
        # No row, or one too many: an earlier try may have succeeded and lost only its answer.
        row = row or await self._database.row(self._queries.find_append, task_id, append_id)
        if row is None:
            await self._progress(task_id)
            raise StorageFailure(
                f"The record of task {task_id!r} is complete: nothing can follow its end."
            )
        return event_from(row)

    async def follow(self, task_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Events with a number above `after`: those recorded, then new ones as they come.

        Ends after the task's `finished` event, and at once if that is at or before `after`.
        Gap-free and in order; a slow reader costs no memory and holds up nobody.

        Raises:
            TaskNotFound: No task has this id; raised at the first iteration.
        """
        task_id = storable_text(task_id)
        async with self._notifications.wakeups(task_id) as wakeup:
            last, unsure, known = after, True, False
            while True:
                unsure = wakeup.clear() or unsure
                if not unsure and wakeup.newest <= last:
                    await wakeup.wait()
                    continue
                # All readers of a task are woken at once and share one query.
                events, fresh = await self._reads.get((task_id, last))
                for event in events:
                    last = event.number
                    yield event
                    if event.kind is EventKind.FINISHED:
                        return
                if not fresh or len(events) == _BATCH:
                    continue
                unsure = False
                if events:
                    continue
                if not known:
                    last_event, closed = await self._progress(task_id)
                    if closed and last_event <= last:
                        return
                    known = True
                await wakeup.wait()

    async def close(self) -> None:
        """Let go of the connection that brings the news."""
        await self._notifications.close()

    async def _read(self, place: tuple[str, int]) -> list[Event]:
        """The events of a task after a number, at most `_BATCH`."""
        rows = await self._database.rows(self._queries.read_events, *place, _BATCH)
        return [event_from(row) for row in rows]

    async def _progress(self, task_id: str) -> tuple[int, bool]:
        row = await self._database.row(self._queries.read_progress, task_id)
        if row is None:
            raise unknown_task(task_id)
        return int(row["last_event"]), bool(row["events_closed"])


def _append_id(task_id: str, event: NewEvent) -> uuid.UUID:
    if not event.key:
        return uuid.uuid4()
    return uuid.uuid5(_EVENTS, f"{task_id}/{event.kind}/{event.step}/{event.key}")
