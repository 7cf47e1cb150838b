"""Talk to the worker in a container: its lifecycle routes over HTTP, its tools over MCP."""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar
from urllib.parse import quote

import httpx2

from orchestrator.domain.container import Container
from orchestrator.domain.egress import EgressPass
from orchestrator.domain.task import InputFile, Patch, StartPoint
from orchestrator.errors import (
    BerthError,
    RuntimeFailure,
    StaleLease,
    TreeGone,
    WorkerRefused,
    WorkerUnreachable,
)
from orchestrator.ports import (
    HeldCheckpoints,
    HeldPart,
    HeldRepository,
    PreparedTask,
    Toolbox,
)
from orchestrator.tools.mcp_toolbox import mcp_toolbox
from orchestrator.workers.answers import (
    Answer,
    Changes,
    Checkpoints,
    Clones,
    Done,
    Kept,
    Prepared,
    Refusal,
    read_answer,
)

CONNECT_SECONDS = 5.0
# Installing dependencies and unpacking a large repository take their time.
ANSWER_SECONDS = 1_800.0
GENERATION_HEADER = "Berth-Generation"
MAX_CONNECTIONS = 64
MAX_ANSWER_BYTES = 16 * 2**20
MAX_PATCH_ANSWER_BYTES = 512 * 2**20
UNKNOWN_TASK = "unknown_task"
"""The code of a worker that has no tree of a task."""
HEALTH_SECONDS = 5.0
UNCLAIMED = "none"
"""In place of a key, for requests that need none."""

A = TypeVar("A", bound=Answer)


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
    """`ports.Worker`: one connection pool to one worker."""

    def __init__(self, container: Container, key: str, generation: int = 0) -> None:
        self._container = container
        self._key = key
        self._http = httpx2.AsyncClient(
            transport=_transport(container),
            base_url=container.endpoint.url,
            headers={"Authorization": f"Bearer {key}", GENERATION_HEADER: str(generation)},
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        )

    async def claim(self) -> None:
        """Make the worker ours.

        Raises:
            StaleLease: It has seen a higher generation of the lease.
            WorkerRefused: It is claimed with another key.
            WorkerUnreachable: It does not answer.
        """
        await self._ask(Done, "POST", "/claim", json={"key": self._key})

    async def health(self) -> None:
        """Ask whether it is up; needs no claim.

        Raises:
            WorkerRefused: It is not.
            WorkerUnreachable: It does not answer.
        """
        await self._ask(Done, "GET", "/health")

    async def warm(self) -> None:
        """Have it load its tools; needs no claim.

        Raises:
            WorkerRefused: It cannot.
            WorkerUnreachable: It does not answer.
        """
        await self._ask(Done, "POST", "/warm")

    async def repositories(self) -> Sequence[HeldRepository]:
        """The clones the worker has."""
        answer = await self._ask(Clones, "GET", "/repositories")
        return [HeldRepository(each.name, tuple(each.tips)) for each in answer.repositories]

    async def receive(self, name: str, url: str, bundle: AsyncIterator[bytes]) -> None:
        """Stream a git bundle into the clone `name`."""
        path = f"/repositories/{quote(name, safe='')}"
        await self._ask(Done, "PUT", path, params={"url": url}, content=bundle)

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
        answer = await self._ask(Prepared, "POST", "/prepare", json=body)
        return PreparedTask(tuple(answer.dependencies))

    async def let_out(self, task_id: str, egress_pass: EgressPass) -> None:
        """Give a task what its programs need to get out."""
        body = {
            "user": egress_pass.user,
            "password": egress_pass.password,
            "variables": dict(egress_pass.variables),
        }
        await self._ask(Done, "PUT", f"{_of_task(task_id)}/pass", json=body)

    async def continue_tree(
        self, task_id: str, earlier: str, files: Sequence[InputFile]
    ) -> PreparedTask:
        """Have a task go on in the tree of one that has ended."""
        body = {"task": task_id, "earlier": earlier, "files": _files(files)}
        await self._ask(Done, "POST", "/continue", json=body)
        return PreparedTask(())

    async def fork_tree(self, task_id: str, parent: str, step: int) -> PreparedTask:
        """Make a task's tree from another's checkpoint."""
        body = {"task": task_id, "parent": parent, "step": step}
        await self._ask(Done, "POST", "/fork", json=body)
        return PreparedTask(())

    async def require_tree(self, task_id: str) -> None:
        """See that the worker has the tree of a task."""
        await self._ask(Done, "GET", _of_task(task_id))

    async def difference(self, task_id: str, start: int, end: int | None) -> Patch:
        """The patch between the trees after two steps."""
        params = {"from": str(start)} | ({} if end is None else {"to": str(end)})
        path = f"{_of_task(task_id)}/diff"
        answer = await self._ask(Changes, "GET", path, params=params, limit=MAX_PATCH_ANSWER_BYTES)
        return Patch(answer.diff, tuple(answer.changed_files), tuple(answer.left_out))

    async def patch(self, task_id: str) -> Patch:
        """What the task changed so far."""
        answer = await self._ask(
            Changes, "GET", f"{_of_task(task_id)}/changes", limit=MAX_PATCH_ANSWER_BYTES
        )
        return Patch(answer.diff, tuple(answer.changed_files), tuple(answer.left_out))

    async def interrupt(self, task_id: str) -> None:
        """End the task's tool calls that still run."""
        await self._ask(Done, "POST", f"{_of_task(task_id)}/interrupt")

    async def keep_output(self, task_id: str, name: str, text: str) -> str:
        """Keep a long tool output in the task's tree."""
        path = f"{_of_task(task_id)}/outputs/{quote(name, safe='')}"
        answer = await self._ask(Kept, "PUT", path, content=text.encode(errors="replace"))
        return answer.path

    async def checkpoints(self, task_id: str) -> HeldCheckpoints:
        """Which checkpoints of a task there are."""
        answer = await self._ask(Checkpoints, "GET", f"{_of_task(task_id)}/checkpoints")
        parts = (
            HeldPart(each.name, each.start, each.commit, each.state, each.checkpoints)
            for each in answer.parts
        )
        return HeldCheckpoints(
            answer.prepared, answer.key, answer.failed, frozenset(answer.ended), tuple(parts)
        )

    async def bundle(
        self, task_id: str, name: str, tips: Sequence[str], without: Sequence[str]
    ) -> AsyncGenerator[bytes, None]:
        """A git bundle of commits of a task's repository."""
        path = f"{_of_task(task_id)}/bundles/{quote(name, safe='')}"
        body = {"tips": list(tips), "without": list(without)}
        try:
            async with self._http.stream("POST", path, json=body) as response:
                if response.is_error:
                    raise self._refused(response, await _read(response, MAX_ANSWER_BYTES) or b"")
                async for chunk in response.aiter_bytes():
                    yield chunk
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    async def take_bundle(
        self, task_id: str, name: str, bundle: AsyncGenerator[bytes, None]
    ) -> None:
        """Give the repository of a prepared task the commits of a git bundle."""
        path = f"{_of_task(task_id)}/bundles/{quote(name, safe='')}"
        await self._ask(Done, "PUT", path, content=bundle)

    async def restore(self, task_id: str, key: str, states: Mapping[str, str]) -> None:
        """Put a prepared task's tree to a checkpoint whose state commits it has."""
        listed = [{"name": name, "commit": commit} for name, commit in states.items()]
        body = {"key": key, "states": listed}
        await self._ask(Done, "POST", f"{_of_task(task_id)}/restore", json=body)

    def toolbox(self, task_id: str) -> AbstractAsyncContextManager[Toolbox]:
        """The worker's tools, bound to the task's tree."""
        url = f"{self._container.endpoint.url}{_of_task(task_id)}/mcp"
        return mcp_toolbox(url, self._http)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _ask(
        self,
        kind: type[A],
        method: str,
        path: str,
        *,
        json: object = None,
        params: dict[str, str] | None = None,
        content: AsyncIterator[bytes] | bytes | None = None,
        limit: int = MAX_ANSWER_BYTES,
    ) -> A:
        name = self._container.name
        try:
            async with self._http.stream(
                method, path, json=json, params=params, content=content
            ) as response:
                body = await _read(response, limit)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        if body is None:
            raise WorkerRefused(
                f"The worker of {name} sent an answer that is too long.", container=name
            )
        if response.is_error:
            raise self._refused(response, body)
        answer = read_answer(kind, body)
        if answer is None:
            raise WorkerRefused(
                f"The worker of {name} sent what is not an answer to {method} {path}.",
                container=name,
            )
        return answer

    def _unreachable(self, error: httpx2.TransportError) -> WorkerUnreachable:
        name = self._container.name
        return WorkerUnreachable(
            f"The worker of {name} stopped answering ({type(error).__name__}). "
            "Its container is replaced on the next task; send the task again.",
            container=name,
        )

    def _refused(self, response: httpx2.Response, body: bytes) -> BerthError:
        name = self._container.name
        refusal = read_answer(Refusal, body)
        if refusal is not None and refusal.code == StaleLease.code:
            return StaleLease(f"The worker of {name} refused us: {refusal.detail}.", container=name)
        if refusal is not None and refusal.code == UNKNOWN_TASK:
            return tree_gone(name)
        why = refusal.detail if refusal else f"HTTP {response.status_code}"
        return WorkerRefused(f"The worker of {name} refused a request: {why}", container=name)


def tree_gone(container: str) -> TreeGone:
    """The error for a task of whose tree the worker knows nothing."""
    return TreeGone(
        f"The tree of this task is no longer in {container}: its container was removed since. "
        "Its record and its patch are kept; begin a new task with the patch as a file.",
        container=container,
    )


def _files(files: Sequence[InputFile]) -> list[dict[str, str]]:
    return [
        {"name": file.name, "content": base64.b64encode(file.content).decode()} for file in files
    ]


async def _read(response: httpx2.Response, limit: int) -> bytes | None:
    """The body, or None if it has more than `limit` bytes."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _of_task(task_id: str) -> str:
    return f"/tasks/{quote(task_id, safe='')}"


def _transport(container: Container) -> httpx2.AsyncHTTPTransport:
    limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=600)
    uds = container.endpoint.uds
    # Workers speak plain HTTP; without this, certificates are read that nobody asks for, which
    # takes longer than waking a container.
    return httpx2.AsyncHTTPTransport(
        uds=None if uds is None else str(uds), limits=limits, trust_env=False, verify=False
    )
