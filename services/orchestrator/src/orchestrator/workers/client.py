"""Talk to the worker in a container: its lifecycle routes over HTTP, its tools over MCP."""

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

import httpx2

from orchestrator.domain.container import Container
from orchestrator.domain.task import InputFile, Patch, StartPoint
from orchestrator.errors import WorkerRefused, WorkerUnreachable
from orchestrator.ports import HeldRepository, PreparedTask, Toolbox
from orchestrator.tools.mcp_toolbox import mcp_toolbox

CONNECT_SECONDS = 5.0
# Installing dependencies and unpacking a large repository take their time.
ANSWER_SECONDS = 1_800.0
MAX_CONNECTIONS = 64


class HttpWorkers:
    """`ports.Workers` over a unix socket or TCP."""

    async def connect(self, container: Container, key: str) -> "HttpWorker":
        """Claim the worker with our key; see `ports.Workers.connect`."""
        worker = HttpWorker(container, key)
        try:
            await worker.claim()
        except BaseException:
            await worker.close()
            raise
        return worker


class HttpWorker:
    """`ports.Worker`: one connection pool to one worker."""

    def __init__(self, container: Container, key: str) -> None:
        self._container = container
        self._key = key
        self._http = httpx2.AsyncClient(
            transport=_transport(container),
            base_url=container.endpoint.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        )

    async def claim(self) -> None:
        """Make the worker ours.

        Raises:
            WorkerRefused: It is claimed with another key.
            WorkerUnreachable: It does not answer.
        """
        await self._send("POST", "/claim", json={"key": self._key})

    async def repositories(self) -> Sequence[HeldRepository]:
        """The clones the worker has."""
        body = (await self._send("GET", "/repositories")).json()
        return [HeldRepository(each["name"], tuple(each["tips"])) for each in body["repositories"]]

    async def receive(self, name: str, url: str, bundle: AsyncIterator[bytes]) -> None:
        """Stream a git bundle into the clone `name`."""
        await self._send("PUT", f"/repositories/{name}", params={"url": url}, content=bundle)

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
            "files": [
                {"name": file.name, "content": base64.b64encode(file.content).decode()}
                for file in files
            ],
            "install": install,
        }
        answer = (await self._send("POST", "/prepare", json=body)).json()
        return PreparedTask(tuple(answer["dependencies"]))

    async def patch(self, task_id: str) -> Patch:
        """What the task changed so far."""
        body = (await self._send("GET", f"/tasks/{task_id}/changes")).json()
        return Patch(body["diff"], tuple(body["changed_files"]), tuple(body["left_out"]))

    async def keep_output(self, task_id: str, name: str, text: str) -> str:
        """Keep a long tool output in the task's tree."""
        content = text.encode(errors="replace")
        answer = await self._send("PUT", f"/tasks/{task_id}/outputs/{name}", content=content)
        path: str = answer.json()["path"]
        return path

    def toolbox(self, task_id: str) -> AbstractAsyncContextManager[Toolbox]:
        """The worker's tools, bound to the task's tree."""
        url = f"{self._container.endpoint.url}/tasks/{task_id}/mcp"
        return mcp_toolbox(url, self._http)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _send(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: dict[str, str] | None = None,
        content: AsyncIterator[bytes] | bytes | None = None,
    ) -> httpx2.Response:
        name = self._container.name
        try:
            response = await self._http.request(
                method, path, json=json, params=params, content=content
            )
        except httpx2.TransportError as error:
            raise WorkerUnreachable(
                f"The worker of {name} stopped answering ({type(error).__name__}). "
                "Its container is replaced on the next task; send the task again.",
                container=name,
            ) from error
        if response.is_error:
            raise WorkerRefused(_refusal(name, response), container=name)
        return response


def _transport(container: Container) -> httpx2.AsyncHTTPTransport:
    limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=600)
    uds = container.endpoint.uds
    if uds is None:
        return httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)
    return httpx2.AsyncHTTPTransport(uds=str(uds), limits=limits, trust_env=False)


def _refusal(name: str, response: httpx2.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"HTTP {response.status_code}"
    return f"The worker of {name} refused a request: {detail}"
