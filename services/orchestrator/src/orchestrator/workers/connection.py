"""A connection to one worker, whose answers are checked."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

import httpx2

from orchestrator.domain.container import Container
from orchestrator.errors import BerthError, StaleLease, TreeGone, WorkerRefused, WorkerUnreachable
from orchestrator.workers.answers import Answer, Refusal, read_answer
from orchestrator.workers.transport import WorkerTransport

CONNECT_SECONDS = 5.0
# Installing dependencies and unpacking a large repository take their time.
ANSWER_SECONDS = 1_800.0
GENERATION_HEADER = "Berth-Generation"
MAX_ANSWER_BYTES = 16 * 2**20
UNKNOWN_TASK = "unknown_task"
"""The code of a worker that has no tree of a task."""

STORAGE_FAILED = "storage_failed"
"""The code of a worker that cannot write its workspace, or not read what it keeps there."""

A = TypeVar("A", bound=Answer)


class WorkerConnection:
    """A pool of connections to the worker in a container.

    Args:
        container: Where the worker is.
        key: What it is claimed with.
        generation: Of the lease we hold, sent with every request.
    """

    def __init__(self, container: Container, key: str, generation: int) -> None:
        self._container = container
        self.http = httpx2.AsyncClient(
            transport=WorkerTransport(container.endpoint),
            base_url=container.endpoint.url,
            headers={"Authorization": f"Bearer {key}", GENERATION_HEADER: str(generation)},
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        )

    async def ask(
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
        """Send a request and read its answer.

        Args:
            kind: What the answer is to be.
            method: The HTTP method.
            path: Of a route of the worker.
            json: The body, as values.
            params: The query.
            content: The body, as bytes.
            limit: The most bytes that an answer may have.

        Raises:
            StaleLease: The worker has seen a higher generation of the lease.
            TreeGone: It has no tree of the task.
            WorkerRefused: It refuses, or its answer is none.
            WorkerUnreachable: It does not answer.
        """
        name = self._container.name
        try:
            async with self.http.stream(
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

    async def stream(self, path: str, json: object) -> AsyncGenerator[bytes, None]:
        """Post a request whose answer is bytes of any length.

        Raises:
            BerthError: See `ask`.
        """
        try:
            async with self.http.stream("POST", path, json=json) as response:
                if response.is_error:
                    raise self._refused(response, await _read(response, MAX_ANSWER_BYTES) or b"")
                async for chunk in response.aiter_bytes():
                    yield chunk
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    async def close(self) -> None:
        """Close all connections."""
        await self.http.aclose()

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
            return _tree_gone(name)
        why = refusal.detail if refusal else f"HTTP {response.status_code}"
        if refusal is not None and refusal.code == STORAGE_FAILED:
            why += (
                f". If the disk is not full, a command has damaged what the worker keeps: DELETE "
                f"/containers/{name} makes it anew, and trees come back from object storage."
            )
        return WorkerRefused(f"The worker of {name} refused a request: {why}", container=name)


def _tree_gone(container: str) -> TreeGone:
    """The error for a task of whose tree the worker knows nothing."""
    return TreeGone(
        f"The tree of this task is no longer in {container}: its container was removed since. "
        "Its record and its patch are kept; begin a new task with the patch as a file.",
        container=container,
    )


async def _read(response: httpx2.Response, limit: int) -> bytes | None:
    """The body, or None if it has more than `limit` bytes."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)
