"""The worker's HTTP interface: lifecycle routes, and MCP for the tools.

Routes (all but the first two need the key of the claim):

    GET  /health                          is it up, is it claimed
    POST /claim {key}                     make it ours
    GET  /repositories                    which clones it has
    PUT  /repositories/{name}?url=        a git bundle to fetch from
    POST /prepare                         make a task's tree
    GET  /tasks/{id}/changes              the task's patch
    PUT  /tasks/{id}/outputs/{name}       keep a long tool output
    *    /tasks/{id}/mcp                  MCP (streamable HTTP, stateless)
    POST /shutdown                        end the worker
"""

import base64
import binascii
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agent.access import Claim, RequireClaim, claim_route
from agent.changes import ChangeReader
from agent.clones import Clones
from agent.dependencies import describe, detect, install
from agent.errors import BadRequest, WorkerError
from agent.layout import Layout, checked_name
from agent.settings import WorkerSettings
from agent.tools import Tools
from agent.trees import PlacedFile, Start, TaskRecord, Trees


def installed_version() -> str:
    """The version of this distribution; where only its files were copied, what the image says."""
    try:
        return version("berth")
    except PackageNotFoundError:
        return os.environ.get("BERTH_VERSION", "unpackaged")


class Worker:
    """The routes and what they work on."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._layout = Layout(settings.workspace)
        self._instance = secrets.token_hex(8)
        self._version = installed_version()
        self._claim = Claim()
        self._clones = Clones(self._layout)
        self._trees = Trees(self._layout)
        self._changes = ChangeReader(self._layout, self._trees)
        self._tools = Tools(self._version)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/claim", self._make_claim, methods=["POST"]),
                Route("/repositories", self._repositories),
                Route("/repositories/{name}", self._receive, methods=["PUT"]),
                Route("/prepare", self._prepare, methods=["POST"]),
                Route("/tasks/{task}/changes", self._read_changes),
                Route("/tasks/{task}/outputs/{name}", self._keep_output, methods=["PUT"]),
                Route("/tasks/{task}/mcp", _McpEndpoint(self._trees, self._tools)),
                Route("/shutdown", self._shutdown, methods=["POST"]),
            ],
            middleware=[Middleware(RequireClaim, claim=self._claim)],
            exception_handlers={WorkerError: _answer_error},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        await self._tools.close()

    async def _health(self, _request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "status": "ok",
                "version": self._version,
                "instance": self._instance,
                "claimed": self._claim.made,
            }
        )

    async def _make_claim(self, request: Request) -> JSONResponse:
        response = await claim_route(request, self._claim)
        # Imported while the orchestrator is busy with the clone: the tools are ready after it.
        self._tools.load()
        return response

    async def _repositories(self, _request: Request) -> JSONResponse:
        held = await self._clones.held()
        return JSONResponse({"repositories": [asdict(clone) for clone in held]})

    async def _receive(self, request: Request) -> JSONResponse:
        name = checked_name(request.path_params["name"])
        url = request.query_params.get("url", "")
        await self._clones.receive(name, url, request.stream())
        return JSONResponse({})

    async def _prepare(self, request: Request) -> JSONResponse:
        body = await request.json()
        try:
            task = checked_name(body["task"])
            start = [Start(part["name"], part["commit"]) for part in body["start"]]
            files = [
                PlacedFile(file["name"], base64.b64decode(file["content"], validate=True))
                for file in body["files"]
            ]
        except (KeyError, TypeError, binascii.Error) as error:
            raise BadRequest(f"prepare: malformed request ({type(error).__name__})") from None
        record = await self._trees.prepare(task, start, files)
        told = await self._dependencies(task, record, wanted=bool(body.get("install")))
        return JSONResponse({"dependencies": told})

    async def _dependencies(self, task: str, record: TaskRecord, *, wanted: bool) -> list[str]:
        told: list[str] = []
        for part in record.parts:
            directory = self._layout.task(task) / part.directory
            installers = detect(directory)
            if not wanted:
                told += describe(installers)
                continue
            for installer in installers:
                self._trees.ignore(task, part, installer.ignored)
                told.append(await install(installer, directory, self._layout.caches))
        return told

    async def _read_changes(self, request: Request) -> JSONResponse:
        changes = await self._changes.changes(request.path_params["task"])
        return JSONResponse(asdict(changes))

    async def _keep_output(self, request: Request) -> JSONResponse:
        task, name = request.path_params["task"], checked_name(request.path_params["name"])
        root = self._trees.root(task)
        directory = self._layout.outputs(task)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / name
        path.write_bytes(await request.body())
        return JSONResponse({"path": str(path.relative_to(root))})

    async def _shutdown(self, _request: Request) -> Response:
        os.kill(os.getpid(), signal.SIGTERM)
        return Response(status_code=202)


class _McpEndpoint:
    """`/tasks/{task}/mcp`, as an ASGI application."""

    def __init__(self, trees: Trees, tools: Tools) -> None:
        self._trees = trees
        self._tools = tools

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path_params: dict[str, Any] = scope["path_params"]
        root: Path = self._trees.root(path_params["task"])
        server = await self._tools.get()
        await server.handle(root, scope, receive, send)


async def _answer_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, WorkerError):
        raise error
    return JSONResponse({"code": error.code, "detail": str(error)}, status_code=error.status)
