"""What is kept in Postgres."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from orchestrator.domain.events import Event, EventKind, NewEvent
from orchestrator.domain.task import Ending, NewTask, Task, TaskFilter
from orchestrator.domain.workspace import Workspace, WorkspaceRecord


class TaskStore(Protocol):
    """Tasks and workspaces in Postgres."""

    async def add(self, task: NewTask, runtime: str) -> Task:
        """Record a task as running, and its workspace as used."""
        ...

    async def finish(self, task_id: str, ending: Ending) -> Task:
        """Record how a task ended; the first ending counts, later ones change nothing."""
        ...

    async def get(self, task_id: str) -> Task:
        """The task.

        Raises:
            TaskNotFound: No task has this id.
        """
        ...

    async def list(self, wanted: TaskFilter) -> Sequence[Task]:
        """A page of tasks, the newest first."""
        ...

    async def unfinished(self) -> Sequence[Task]:
        """Tasks without an ending, or whose `finished` event is missing, the oldest first."""
        ...

    async def request_cancel(self, task_id: str) -> Task:
        """Ask whoever runs a task to end it as cancelled; one that has ended stays as it is.

        Raises:
            TaskNotFound: No task has this id.
        """
        ...

    async def workspaces(self) -> Sequence[WorkspaceRecord]:
        """All workspaces, the latest used first."""
        ...

    async def worker_key(self, workspace: Workspace) -> str:
        """The secret our workers of this workspace are claimed with; made on first use."""
        ...


class EventLog(Protocol):
    """The record of what happened in each task."""

    async def append(self, task_id: str, event: NewEvent) -> Event:
        """Record an event under the task's next number and wake its readers."""
        ...

    async def recorded(self, task_id: str, kind: EventKind) -> Sequence[Event]:
        """The events of one kind that are there now, in their order."""
        ...

    def follow(self, task_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Events with a number above `after`: those recorded, then new ones as they come.

        Ends after the task's `finished` event. Gap-free and in order.
        """
        ...


class Cancels(Protocol):
    """Requests to cancel tasks, heard by every orchestrator."""

    def follow(self) -> AsyncIterator[str]:
        """Ids of tasks to be cancelled: those asked for already, then each as it is asked for."""
        ...
