"""What the orchestrator needs from outside, as interfaces.

Each port has one suite of contract tests in `tests/contract` that every implementation passes.
Only `main` names implementations.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from orchestrator.domain.container import Container, ContainerSpec
from orchestrator.domain.conversation import Message, ModelTurn, ToolResult, ToolSpec
from orchestrator.domain.events import Event, NewEvent
from orchestrator.domain.repository import RepositoryUrl
from orchestrator.domain.task import Ending, InputFile, NewTask, Patch, StartPoint, Task, TaskFilter
from orchestrator.domain.workspace import Workspace, WorkspaceRecord

T = TypeVar("T")

Progress = Callable[[str], Awaitable[None]]
"""Called with the newest line of a running tool's output."""


class Clock(Protocol):
    """Time, so that tests can hold it."""

    def now(self) -> datetime:
        """The current time, with time zone UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What a runtime is and which limits this machine lets it enforce."""

    name: str
    reason: str
    enforced: tuple[str, ...]
    not_enforced: tuple[str, ...]


class Runtime(Protocol):
    """Where containers run.

    Names are those of `Workspace.container_name`. A runtime lists and touches only containers of
    its own deployment. "Already gone" is success for `stop` and `remove`; an engine that does not
    answer raises `RuntimeUnavailable` everywhere and is never taken for "gone".
    """

    async def ensure(self, spec: ContainerSpec) -> Container:
        """Return the container of this name, running, its worker answering `/health`.

        Reuses, resumes, starts, creates or recreates it, as `decide_reuse` says. Two calls at
        once for one name make one container. A container that was begun and could not be brought
        up is removed again before the error is raised; its volume is kept.

        Raises:
            ContainerStartFailed: The worker did not answer in time; the text ends with its log.
            RuntimeUnavailable: The engine does not answer.
        """
        ...

    async def poll(self, name: str) -> Container | None:
        """The container as it is now, or None if there is none.

        Before `ensure` has returned it may report a container whose worker does not answer yet.
        After a crash of the worker it reports `STOPPED` or `BROKEN`, never `RUNNING`.
        """
        ...

    async def stop(self, name: str) -> None:
        """End the container's processes and keep its work; `ensure` brings it back."""
        ...

    async def remove(self, name: str) -> None:
        """Delete the container and its volume, running or not."""
        ...

    async def list(self) -> Sequence[Container]:
        """All containers of this deployment, in any state, sorted by name."""
        ...

    async def logs(self, name: str, lines: int) -> str:
        """The last `lines` lines the container's worker wrote.

        Raises:
            ContainerNotFound: There is no such container.
        """
        ...

    async def info(self) -> RuntimeInfo:
        """What this runtime is and what it enforces."""
        ...

    async def close(self) -> None:
        """Release connections; containers are left as they are."""
        ...


@dataclass(frozen=True, slots=True)
class HeldRepository:
    """A repository a worker has a clone of, and the commits its references point at."""

    name: str
    tips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task's tree stands in the container.

    `dependencies` has a sentence for each kind of dependency file that was found.
    """

    dependencies: tuple[str, ...]


class Toolbox(Protocol):
    """Tools a model can call in one task."""

    async def tools(self) -> Sequence[ToolSpec]:
        """The tools on offer; names are unique."""
        ...

    async def call(
        self,
        name: str,
        arguments: dict[str, object],
        *,
        key: str = "",
        progress: Progress | None = None,
    ) -> ToolResult:
        """Run a tool; what went wrong inside it is a result, not an exception.

        A call with a `key` is run once in its task: the same key again gets the same result.

        Raises:
            WorkerUnreachable: The server behind the tool is gone.
        """
        ...


class Worker(Protocol):
    """The worker in one container, claimed and ready."""

    async def repositories(self) -> Sequence[HeldRepository]:
        """The clones the worker has."""
        ...

    async def receive(self, name: str, url: str, bundle: AsyncIterator[bytes]) -> None:
        """Stream a git bundle into the clone `name`, which is made if need be.

        `url` is only shown to the user as the clone's origin.
        """
        ...

    async def prepare(
        self,
        task_id: str,
        start: Sequence[StartPoint],
        files: Sequence[InputFile],
        *,
        install: bool,
    ) -> PreparedTask:
        """Make the task's worktrees at their start commits and place its files."""
        ...

    async def patch(self, task_id: str) -> Patch:
        """What the task's trees differ in from their start commits, now."""
        ...

    async def interrupt(self, task_id: str) -> None:
        """End the task's tool calls that still run; what they did so far is kept."""
        ...

    async def keep_output(self, task_id: str, name: str, text: str) -> str:
        """Keep a long tool output in the task's tree; returns the path the model can read."""
        ...

    def toolbox(self, task_id: str) -> AbstractAsyncContextManager[Toolbox]:
        """The worker's tools, bound to the task's tree, connected while the context lasts."""
        ...

    async def close(self) -> None:
        """Close the connections to it."""
        ...


class Workers(Protocol):
    """Connects to workers."""

    async def connect(self, container: Container, key: str) -> Worker:
        """Claim the worker of a running container with our key, or prove that it is claimed so.

        Raises:
            WorkerRefused: It is claimed with another key.
            WorkerUnreachable: It does not answer.
        """
        ...


class Repositories(Protocol):
    """The orchestrator's side of git: fetches from outside, serves to workers."""

    async def start_point(self, url: RepositoryUrl, name: str, ref: str | None) -> StartPoint:
        """Bring our mirror up to date and resolve `ref` (None: the remote's HEAD) in it.

        Raises:
            RepositoryError: Refused, unreachable, empty, too large, needs credentials, no such ref.
        """
        ...

    async def bundle(
        self, url: RepositoryUrl, start: StartPoint, have: Sequence[str]
    ) -> AsyncGenerator[bytes, None] | None:
        """A git bundle of the mirror without what follows from the commits in `have`.

        None if a worker that has `have` lacks nothing for `start`. Whoever stops reading early
        must close it.
        """
        ...

    async def read_file(self, url: RepositoryUrl, commit: str, path: str) -> bytes | None:
        """A file's content at a commit, or None if there is no such file."""
        ...


class Model(Protocol):
    """A chat model with tools."""

    async def complete(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], timeout_seconds: float
    ) -> ModelTurn:
        """Ask for the next turn.

        Raises:
            ModelFailure: Unavailable, refused, too slow, or not a chat completion.
        """
        ...


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

    def follow(self, task_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Events with a number above `after`: those recorded, then new ones as they come.

        Ends after the task's `finished` event. Gap-free and in order.
        """
        ...


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in storage.

    `size` is in bytes. `generation` is another number after every write of the key, also after
    the object was deleted and made again; it is never 0.
    """

    key: str
    size: int
    updated_at: datetime
    generation: int


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's content and the very write it comes from."""

    content: bytes = field(repr=False)
    info: ObjectInfo


class ObjectStore(Protocol):
    """Objects by key. Keys are `/`-separated, of visible characters, without `..`.

    `if_generation` makes a write conditional: 0 means "there is no such object", any other number
    "the object is of this generation". Of writers that race with the same condition one wins.

    Every method may raise:
        InvalidRequest: The key cannot be used.
        StorageFailure: Storage does not answer, is full, or holds a damaged object.
    """

    async def put(
        self, key: str, content: bytes, *, if_generation: int | None = None
    ) -> ObjectInfo:
        """Store or replace an object; readers see the old one or the new one, never a part.

        Raises:
            ObjectConflict: The condition does not hold. Also possible after our own write, if
                its confirmation was lost and somebody has replaced it since.
        """
        ...

    async def put_file(
        self, key: str, path: Path, *, if_generation: int | None = None
    ) -> ObjectInfo:
        """As `put`, with the content of a file, however large; the file must not change.

        Raises:
            ObjectConflict: As for `put`.
        """
        ...

    async def read(self, key: str) -> StoredObject:
        """The object, whole.

        Raises:
            ObjectNotFound: There is none.
        """
        ...

    async def get_file(self, key: str, path: Path) -> ObjectInfo:
        """Write the object's content to a file, however large.

        The file appears, or is replaced, when all of it has arrived and its checksum is right.

        Raises:
            ObjectNotFound: There is none.
        """
        ...

    async def list(self, prefix: str) -> Sequence[ObjectInfo]:
        """All objects whose key starts with `prefix`, sorted by key."""
        ...

    async def delete(self, key: str, *, if_generation: int | None = None) -> bool:
        """Delete an object; False if there was none.

        Raises:
            ObjectConflict: There is one, of another generation.
        """
        ...


class Steps(Protocol):
    """The steps of one task, each of which is completed once."""

    async def run(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` and keep its result or error; if it was completed before, return that.

        After a crash in the middle of `work` it is done again: whatever it does outside must be
        safe to repeat. A cancellation is not a completion.

        Args:
            name: Names the step in the record; the same on every run of the task.
            kind: A dataclass that the result is kept as, in JSON.
            work: What to do.
        """
        ...


RunTaskDurably = Callable[[str, Steps], Awaitable[None]]
"""Runs the task of an id with its steps; called again from the top after a crash."""


class Engine(Protocol):
    """Carries tasks across crashes, in order within each workspace."""

    async def start(self, run: RunTaskDurably) -> None:
        """Begin to run submitted tasks with `run`, also those that an earlier process began.

        Raises:
            DatabaseUnavailable: The queue cannot be set up.
        """
        ...

    async def submit(self, task_id: str, workspace_id: str) -> None:
        """Queue a task for good; once this returns, no crash loses it. Twice is once."""
        ...

    async def stop(self) -> None:
        """Take no more tasks; those that were cancelled go on at the next `start`."""
        ...


class Cancels(Protocol):
    """Requests to cancel tasks, heard by every orchestrator."""

    def follow(self) -> AsyncIterator[str]:
        """Ids of tasks to be cancelled: those asked for already, then each as it is asked for."""
        ...
