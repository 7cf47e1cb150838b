"""Talk to the worker in a container: its lifecycle routes over HTTP, its tools over MCP."""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote

from orchestrator.domain.container import Container
from orchestrator.domain.egress import EgressPass
from orchestrator.domain.lacking import Lacking
from orchestrator.domain.task import InputFile, Patch, StartPoint
from orchestrator.errors import RuntimeFailure
from orchestrator.ports import (
    HeldCheckpoints,
    HeldPart,
    HeldRepository,
    PreparedTask,
    Toolbox,
)
from orchestrator.tools.mcp_toolbox import mcp_toolbox
from orchestrator.workers.answers import Changes, Checkpoints, Clones, Done, Kept, Made, Prepared
from orchestrator.workers.connection import WorkerConnection

MAX_PATCH_ANSWER_BYTES = 192 * 2**20  # three times the longest patch, for what JSON escapes
HEALTH_SECONDS = 5.0
UNCLAIMED = "none"
"""In place of a key, for requests that need none."""


class HttpWorkers:
    """`ports.Workers` over a unix socket or TCP."""

    async def connect(self, container: Container, key: str, generation: int = 0) -> "HttpWorker":
        """Claim the worker with our key; see `ports.Workers.connect`."""
        worker = HttpWorker(container, key, generation)
        try:
            await worker.claim()
        except BaseException:
            await worker.close()
            raise
        return worker

    async def is_healthy(self, container: Container) -> bool:
        """Whether the worker answers; see `ports.Workers.is_healthy`."""
        worker = HttpWorker(container, UNCLAIMED)
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                await worker.health()
        except (RuntimeFailure, TimeoutError):
            return False
        finally:
            await worker.close()
        return True

    async def warm(self, container: Container) -> None:
        """Have the tools loaded; see `ports.Workers.warm`."""
        worker = HttpWorker(container, UNCLAIMED)
        try:
            await worker.warm()
        finally:
            await worker.close()


class HttpWorker:
    """`ports.Worker`: one worker's routes."""

    def __init__(self, container: Container, key: str, generation: int = 0) -> None:
        self._container = container
        self._key = key
        self._connection = WorkerConnection(container, key, generation)

    async def claim(self) -> None:
        """Make the worker ours.

        Raises:
            StaleLease: It has seen a higher generation of the lease.
            WorkerRefused: It is claimed with another key.
            WorkerUnreachable: It does not answer.
        """
        await self._connection.ask(Done, "POST", "/claim", json={"key": self._key})

    async def health(self) -> None:
        """Ask whether it is up; needs no claim.

        Raises:
            WorkerRefused: It is not.
            WorkerUnreachable: It does not answer.
        """
        await self._connection.ask(Done, "GET", "/health")

    async def warm(self) -> None:
        """Have it load its tools; needs no claim.

        Raises:
            WorkerRefused: It cannot.
            WorkerUnreachable: It does not answer.
        """
        await self._connection.ask(Done, "POST", "/warm")

    async def repositories(self) -> Sequence[HeldRepository]:
        """The clones the worker has."""
        answer = await self._connection.ask(Clones, "GET", "/repositories")
        return [HeldRepository(each.name, tuple(each.tips)) for each in answer.repositories]

    async def receive(self, name: str, url: str, bundle: AsyncIterator[bytes]) -> None:
        """Stream a git bundle into the clone `name`."""
        path = f"/repositories/{quote(name, safe='')}"
        await self._connection.ask(Done, "PUT", path, params={"url": url}, content=bundle)

    async def prepare(
        self,
        task_id: str,
        start: Sequence[StartPoint],
        files: Sequence[InputFile],
        *,
        install: bool,
    ) -> PreparedTask:
        """Make the task's worktrees and place its files."""
        body = {
            "task": task_id,
            "start": [{"name": point.name, "commit": point.commit} for point in start],
            "files": _files(files),
            "install": install,
        }
        answer = await self._connection.ask(Prepared, "POST", "/prepare", json=body)
        return PreparedTask(tuple(answer.dependencies))

    async def let_out(self, task_id: str, egress_pass: EgressPass) -> None:
        """Give a task what its programs need to get out."""
        body = {
            "user": egress_pass.user,
            "password": egress_pass.password,
            "variables": dict(egress_pass.variables),
        }
        await self._connection.ask(Done, "PUT", f"{_of_task(task_id)}/pass", json=body)

    async def continue_tree(
        self, task_id: str, earlier: str, files: Sequence[InputFile]
    ) -> PreparedTask:
        """Have a task go on in the tree of one that has ended."""
        body = {"task": task_id, "earlier": earlier, "files": _files(files)}
        answer = await self._connection.ask(Made, "POST", "/continue", json=body)
        return PreparedTask((), _lacking(answer))

    async def fork_tree(self, task_id: str, parent: str, step: int) -> PreparedTask:
        """Make a task's tree from another's checkpoint."""
        body = {"task": task_id, "parent": parent, "step": step}
        answer = await self._connection.ask(Made, "POST", "/fork", json=body)
        return PreparedTask((), _lacking(answer))

    async def require_tree(self, task_id: str) -> None:
        """See that the worker has the tree of a task."""
        await self._connection.ask(Done, "GET", _of_task(task_id))

    async def difference(self, task_id: str, start: int, end: int | None) -> Patch:
        """The patch between the trees after two steps."""
        params = {"from": str(start)} | ({} if end is None else {"to": str(end)})
        path = f"{_of_task(task_id)}/diff"
        answer = await self._connection.ask(
            Changes, "GET", path, params=params, limit=MAX_PATCH_ANSWER_BYTES
        )
        return Patch(answer.diff, tuple(answer.changed_files), tuple(answer.left_out))

    async def patch(self, task_id: str) -> Patch:
        """What the task changed so far."""
        answer = await self._connection.ask(
            Changes, "GET", f"{_of_task(task_id)}/changes", limit=MAX_PATCH_ANSWER_BYTES
        )
        return Patch(answer.diff, tuple(answer.changed_files), tuple(answer.left_out))

    async def interrupt(self, task_id: str) -> None:
        """End the task's tool calls that still run."""
        await self._connection.ask(Done, "POST", f"{_of_task(task_id)}/interrupt")

    async def keep_output(self, task_id: str, name: str, text: str) -> str:
        """Keep a long tool output in the task's tree."""
        path = f"{_of_task(task_id)}/outputs/{quote(name, safe='')}"
        answer = await self._connection.ask(
            Kept, "PUT", path, content=text.encode(errors="replace")
        )
        return answer.path

    async def checkpoints(self, task_id: str) -> HeldCheckpoints:
        """Which checkpoints of a task there are."""
        answer = await self._connection.ask(Checkpoints, "GET", f"{_of_task(task_id)}/checkpoints")
        parts = (
            HeldPart(each.name, each.start, each.commit, each.state, each.checkpoints)
            for each in answer.parts
        )
        return HeldCheckpoints(
            answer.prepared, answer.key, answer.failed, frozenset(answer.ended), tuple(parts)
        )

    def bundle(
        self, task_id: str, name: str, tips: Sequence[str], without: Sequence[str]
    ) -> AsyncGenerator[bytes, None]:
        """A git bundle of commits of a task's repository."""
        path = f"{_of_task(task_id)}/bundles/{quote(name, safe='')}"
        return self._connection.stream(path, {"tips": list(tips), "without": list(without)})

    async def take_bundle(
        self, task_id: str, name: str, bundle: AsyncGenerator[bytes, None]
    ) -> None:
        """Give the repository of a prepared task the commits of a git bundle."""
        path = f"{_of_task(task_id)}/bundles/{quote(name, safe='')}"
        await self._connection.ask(Done, "PUT", path, content=bundle)

    async def restore(self, task_id: str, key: str, states: Mapping[str, str]) -> Lacking:
        """Put a prepared task's tree to a checkpoint whose state commits it has."""
        listed = [{"name": name, "commit": commit} for name, commit in states.items()]
        body = {"key": key, "states": listed}
        answer = await self._connection.ask(Made, "POST", f"{_of_task(task_id)}/restore", json=body)
        return _lacking(answer)

    def toolbox(self, task_id: str) -> AbstractAsyncContextManager[Toolbox]:
        """The worker's tools, bound to the task's tree."""
        url = f"{self._container.endpoint.url}{_of_task(task_id)}/mcp"
        return mcp_toolbox(url, self._connection.http)

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()


def _files(files: Sequence[InputFile]) -> list[dict[str, str]]:
    return [
        {"name": file.name, "content": base64.b64encode(file.content).decode()} for file in files
    ]


def _lacking(answer: Made) -> Lacking:
    return Lacking(tuple(answer.older), tuple(answer.missing))


def _of_task(task_id: str) -> str:
    return f"/tasks/{quote(task_id, safe='')}"
