"""What is kept in Postgres."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from orchestrator.domain.events import Event, NewEvent
from orchestrator.domain.steps import UserMessage
from orchestrator.domain.task import Ending, NewTask, Task, TaskFilter
from orchestrator.domain.workspace import Workspace, WorkspaceRecord
from orchestrator.domain.workspace_settings import WorkspaceSettings


class TaskStore(Protocol):
    """Tasks and workspaces in Postgres."""

    async def add(self, task: NewTask, runtime: str) -> Task:
        """Record a task as running, and its workspace as used.

        Raises:
            TaskContinued: It is to continue a task that another continues.
        """
        ...

    async def finish(
        self,
        task_id: str,
        ending: Ending,
        generation: int | None = None,
        heard: int | None = None,
    ) -> Task:
        """Record how a task ended; the first ending counts, later ones change nothing.

        Args:
            task_id: The task.
            ending: How it ended.
            generation: Of the lease it ran under; None if it never came to run.
            heard: If given, a task that was sent a message after the one of this number does not
                end: it is returned without an ending, and goes on.

        Raises:
            TaskNotFound: No task has this id.
            StaleLease: The lease was taken over; nothing is recorded.
        """
        ...

    async def say(self, task_id: str, text: str, key: str = "") -> UserMessage | None:
        """Record what a user says to a task; None if that has ended.

        With a `key` the same message again is recorded once.

        Raises:
            TaskNotFound: No task has this id.
            KeyReused: The key came before, with another text.
        """
        ...

    async def messages(self, task_id: str, after: int = 0) -> Sequence[UserMessage]:
        """What was said to a task after the message of a number, in order."""
        ...

    async def last_step(self, task_id: str) -> int:
        """The number of a task's last completed step; 0 before the first."""
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


class WorkspaceSettingsStore(Protocol):
    """The settings of workspaces; one for which nothing was set has empty ones."""

    async def get(self, workspace_id: str) -> WorkspaceSettings:
        """What was set for a workspace.

        Raises:
            WorkspaceNotFound: No workspace has this id.
        """
        ...

    async def put(self, workspace_id: str, settings: WorkspaceSettings) -> None:
        """Replace all that was set.

        Raises:
            WorkspaceNotFound: No workspace has this id.
        """
        ...


class EventLog(Protocol):
    """The record of what happened in each task."""

    async def append(self, task_id: str, event: NewEvent, generation: int | None = None) -> Event:
        """Record an event under the task's next number and wake its readers.

        Args:
            task_id: The task.
            event: What happened.
            generation: Of the lease it happened under; None outside of any.

        Raises:
            TaskNotFound: No task has this id.
            StaleLease: The lease was taken over; nothing is recorded.
        """
        ...

    def recorded(self, task_id: str) -> AsyncIterator[Event]:
        """The events recorded so far, in order; it does not wait for more."""
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
