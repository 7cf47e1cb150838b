"""Tasks and workspaces in Postgres."""

import secrets
from collections.abc import Sequence

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
        """
        await self.worker_key(task.workspace)
        await self._database.rows(self._queries.add_task, *task_values(task, runtime))
        return await self.get(task.id)

    async def finish(self, task_id: str, ending: Ending, generation: int | None = None) -> Task:
        """Record how a task ended; the first ending counts, later ones change nothing.

        Raises:
            TaskNotFound: No task has this id.
            StaleLease: The lease is not of this generation any more; nothing is recorded.
        """
        await self._database.rows(
            self._queries.finish_task, storable_text(task_id), *ending_values(ending), generation
        )
        if generation is not None:
            await require_lease(self._database, storable_text(task_id), generation)
        return await self.get(task_id)

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
