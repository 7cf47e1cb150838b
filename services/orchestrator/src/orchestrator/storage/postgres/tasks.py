"""Tasks and workspaces in Postgres."""

import secrets
from collections.abc import Sequence

import asyncpg

from orchestrator.domain.lineage import continued
from orchestrator.domain.request import key_reused
from orchestrator.domain.steps import UserMessage
from orchestrator.domain.task import Ending, NewTask, Task, TaskFilter
from orchestrator.domain.workspace import Workspace, WorkspaceRecord
from orchestrator.errors import StaleLease, TaskNotFound
from orchestrator.storage.postgres.pool import Database
from orchestrator.storage.postgres.queries import load_queries
from orchestrator.storage.postgres.rows import (
    ending_values,
    task_from,
    task_values,
    workspace_record_from,
    workspace_values,
)
from orchestrator.storage.postgres.text import storable_text

_KEY_BYTES = 32


class PostgresTaskStore:
    """`ports.TaskStore` on a migrated database.

    Every method may raise `DatabaseUnavailable` when Postgres does not answer, or not in time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = load_queries()

    async def add(self, task: NewTask, runtime: str) -> Task:
        """Record a task as running, and its workspace as used.

        Adding a task that is recorded already changes nothing and returns it as it is.

        Raises:
            TaskContinued: It is to continue a task that another continues.
        """
        await self.worker_key(task.workspace)
        try:
            await self._database.rows(self._queries.add_task, *task_values(task, runtime))
        except asyncpg.UniqueViolationError:
            # Of its own id the statement makes nothing; the one other rule is on continuations.
            parent = await self.get(task.lineage.parent if task.lineage else task.id)
            raise continued(parent.id, str(parent.continued_by)) from None
        return await self.get(task.id)

    async def finish(
        self,
        task_id: str,
        ending: Ending,
        generation: int | None = None,
        heard: int | None = None,
    ) -> Task:
        """Record how a task ended; the first ending counts, later ones change nothing.

        With `heard`, a task that was sent a message after that number stays without an ending.

        Raises:
            TaskNotFound: No task has this id.
            StaleLease: The lease is not of this generation any more; nothing is recorded.
        """
        values = (storable_text(task_id), *ending_values(ending), generation, heard)
        await self._database.rows(self._queries.finish_task, *values)
        if generation is not None:
            await require_lease(self._database, storable_text(task_id), generation)
        return await self.get(task_id)

    async def say(self, task_id: str, text: str, key: str = "") -> UserMessage | None:
        """Record what a user says to a task; None if that has ended.

        Raises:
            TaskNotFound: No task has this id.
            KeyReused: The key came before, with another text.
        """
        text, task_id = storable_text(text), storable_text(task_id)
        values = (task_id, text, storable_text(key) or secrets.token_hex(16))
        try:
            row = await self._database.row(self._queries.add_message, *values)
        except asyncpg.UniqueViolationError:
            # Sent twice at once; the other is recorded by now.
            row = await self._database.row(self._queries.add_message, *values)
        if row is None:
            await self.get(task_id)
            return None
        if row["text"] != text:
            raise key_reused()
        return UserMessage(row["number"], row["text"])

    async def messages(self, task_id: str, after: int = 0) -> Sequence[UserMessage]:
        """What was said to a task after the message of a number, in order."""
        rows = await self._database.rows(self._queries.read_messages, storable_text(task_id), after)
        return [UserMessage(row["number"], row["text"]) for row in rows]

    async def last_step(self, task_id: str) -> int:
        """The number of a task's last completed step; 0 before the first."""
        row = await self._database.row(self._queries.last_step, storable_text(task_id))
        if row is None:
            raise RuntimeError("last_step returns a row by its form")
        return int(row["step"])

    async def get(self, task_id: str) -> Task:
        """The task.

        Raises:
            TaskNotFound: No task has this id.
        """
        row = await self._database.row(self._queries.get_task, storable_text(task_id))
        if row is None:
            raise unknown_task(task_id)
        return task_from(row)

    async def list(self, wanted: TaskFilter) -> Sequence[Task]:
        """A page of tasks, the newest first."""
        rows = await self._database.rows(
            self._queries.list_tasks,
            wanted.status.value if wanted.status else None,
            storable_text(wanted.workspace_id) if wanted.workspace_id is not None else None,
            storable_text(wanted.before) if wanted.before is not None else None,
            wanted.limit,
        )
        return [task_from(row) for row in rows]

    async def unfinished(self) -> Sequence[Task]:
        """Tasks without an ending, or whose `finished` event is missing, the oldest first."""
        rows = await self._database.rows(self._queries.unfinished_tasks)
        return [task_from(row) for row in rows]

    async def request_cancel(self, task_id: str) -> Task:
        """Ask for a task's end; one that has ended stays as it is.

        Raises:
            TaskNotFound: No task has this id.
        """
        await self._database.rows(self._queries.request_cancel, storable_text(task_id))
        return await self.get(task_id)

    async def workspaces(self) -> Sequence[WorkspaceRecord]:
        """All workspaces, the latest used first."""
        rows = await self._database.rows(self._queries.list_workspaces)
        return [workspace_record_from(row) for row in rows]

    async def worker_key(self, workspace: Workspace) -> str:
        """The secret our workers of this workspace are claimed with; made on first use.

        It also marks the workspace as used.
        """
        row = await self._database.row(
            self._queries.use_workspace,
            *workspace_values(workspace),
            secrets.token_urlsafe(_KEY_BYTES),
        )
        if row is None:
            raise RuntimeError("use_workspace returns a row by its form")
        return str(row["worker_key"])


async def require_lease(database: Database, task_id: str, generation: int) -> None:
    """Tell a writer whose statement may have been refused for its generation that it was.

    Raises:
        StaleLease: The lease on the task's workspace is of another generation.
    """
    row = await database.row(load_queries().task_lease, task_id)
    if row is not None and row["generation"] != generation:
        raise StaleLease(
            f"The lease {generation} that task {task_id} ran under was taken over: another "
            "orchestrator goes on with it.",
            task_id=task_id,
            generation=generation,
        )


def unknown_task(task_id: str) -> TaskNotFound:
    """The error for an id that no task has."""
    shown = storable_text(task_id)[:100]
    return TaskNotFound(f"There is no task {shown!r}: check the id.", task_id=shown)
