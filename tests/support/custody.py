"""Workers, object storage and the way between them, without the service around."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from tests.support.repositories import SourceRepository
from tests.support.worker_process import KEY, worker_process

from orchestrator.clock import SystemClock
from orchestrator.domain.budget import Budget
from orchestrator.domain.conversation import ToolResult
from orchestrator.domain.events import Event, EventKind, NewEvent
from orchestrator.domain.manifest import Manifest
from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.task import NewTask, StartPoint
from orchestrator.domain.workspace import scratch_workspace, workspace_of
from orchestrator.flow.export import Export
from orchestrator.flow.inherit import Inherit
from orchestrator.flow.lease import Leased
from orchestrator.flow.preserve import Preserve
from orchestrator.flow.restore import Restore
from orchestrator.flow.stored import Filling
from orchestrator.flow.supply import Supply
from orchestrator.flow.turns import Turns
from orchestrator.gateway.checkpoint_store import GitCheckpointStore
from orchestrator.gateway.mirrors import GitRepositories
from orchestrator.ports import Worker
from orchestrator.storage.objects.files import FileObjectStore
from orchestrator.workers.client import HttpWorkers

MAX_BYTES = 1_000_000


class ToolEvents:
    """A `ports.EventLog` of one task that knows which tool calls were completed."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    async def append(self, task_id: str, event: NewEvent, generation: int | None = None) -> Event:
        number = len(self._events) + 1
        now = datetime.now(UTC)
        self._events.append(Event(task_id, number, event.kind, event.step, event.data, now))
        return self._events[-1]

    async def recorded(self, task_id: str) -> AsyncIterator[Event]:
        for event in self._events:
            if event.task_id == task_id:
                yield event

    def follow(self, task_id: str, after: int = 0) -> AsyncIterator[Event]:
        raise NotImplementedError


class Machine:
    """An orchestrator's disk, with object storage that another machine may share."""

    def __init__(self, data_dir: Path, objects: Path, allowed: Path, events: ToolEvents) -> None:
        self.objects = FileObjectStore(objects)
        self.preserve = Preserve(self.objects, SystemClock())
        repositories = GitRepositories(
            data_dir,
            allow_paths=[allowed],
            allow_hosts=[],
            max_repository_bytes=100_000_000,
            timeout_seconds=30.0,
            max_file_bytes=10_000,
        )
        self.repositories = repositories
        self.store = GitCheckpointStore(data_dir, repositories=repositories, max_bytes=MAX_BYTES)
        no_parents = cast("Inherit", None)  # none of these tasks builds on another
        self.supply = Supply(repositories, no_parents)
        self.room = data_dir / "bundles"
        self.room.mkdir(parents=True, exist_ok=True)
        turns = Turns()
        self.filling = Filling(self.preserve, self.store, self.room)
        self.export = Export(self.preserve, self.store, turns, self.room)
        self.restore = Restore(
            supply=self.supply,
            preserve=self.preserve,
            store=self.store,
            filling=self.filling,
            events=events,
            turns=turns,
        )

    async def manifest(self, task: NewTask) -> Manifest:
        """What object storage has of a task's workspace."""
        manifest = await self.preserve.read(task.workspace.id)
        assert manifest is not None
        return manifest


class Hall:
    """Machines and workers of one test."""

    def __init__(self, directory: Path, sources: Sequence[SourceRepository]) -> None:
        self.directory = directory
        self.events = ToolEvents()
        self.sources = sources
        self._stack = AsyncExitStack()
        self._count = 0

    async def __aenter__(self) -> "Hall":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def machine(self) -> Machine:
        """A machine with an empty disk and the shared object storage."""
        data = self._new("machine")
        return Machine(data, self.directory / "objects", self.directory, self.events)

    async def worker(self) -> Leased:
        """A claimed worker with an empty volume."""
        process = await self._stack.enter_async_context(worker_process(self._new("w")))
        worker = await HttpWorkers().connect(process.container, KEY)
        self._stack.push_async_callback(worker.close)
        return Leased(process.container, worker, 1)

    def task(self, task_id: str = "t") -> NewTask:
        """A task on the sources."""
        urls = [parse_repository_url(str(each.path)) for each in self.sources]
        workspace = workspace_of(urls) if urls else scratch_workspace(task_id)
        start = tuple(
            StartPoint(repository.name, source.head, "main")
            for repository, source in zip(workspace.repositories, self.sources, strict=True)
        )
        return NewTask(task_id, "?", workspace, start, (), Budget(100, 10**6, 100.0))

    async def run(
        self, worker: Worker, step: int, command: str, *, completed: bool = True
    ) -> ToolResult:
        """A call of the task's shell, recorded if it counts as completed."""
        return await self.call(worker, step, "bash", {"command": command}, completed=completed)

    async def call(
        self,
        worker: Worker,
        step: int,
        tool: str,
        arguments: Mapping[str, str],
        *,
        completed: bool = True,
    ) -> ToolResult:
        """A call of a tool, recorded if it counts as completed."""
        async with worker.toolbox("t") as toolbox:
            result = await toolbox.call(tool, dict(arguments), key=str(step))
        if completed:
            await self.record(step, tool, arguments)
        return result

    async def record(self, step: int, tool: str, arguments: Mapping[str, str]) -> None:
        """Record a call as completed."""
        text = "{" + ", ".join(f'"{name}": "{value}"' for name, value in arguments.items()) + "}"
        data = {"id": f"c{step}", "name": tool, "arguments": text}
        await self.events.append("t", NewEvent(EventKind.TOOL, step, {**data}))

    def _new(self, name: str) -> Path:
        self._count += 1
        directory = self.directory / f"{name}{self._count}"
        directory.mkdir()
        return directory
