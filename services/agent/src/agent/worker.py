"""The worker's HTTP interface: lifecycle routes, and MCP for the tools.

Routes (all but the first three need the key of the claim and the newest lease; the claim needs the
newest lease):

    GET  /health                          is it up, is it claimed
    POST /warm                            load the tools now, before anybody claims it
    POST /claim {key}                     make it ours
    GET  /repositories                    which clones it has
    PUT  /repositories/{name}?url=        a git bundle to fetch from
    POST /prepare                         make a task's tree
    PUT  /tasks/{id}/pass                 what the task's programs need to get out
    POST /continue {task, earlier, files} have a task go on in an earlier one's tree
    POST /fork {task, parent, step}       make a task's tree from another's checkpoint
    GET  /tasks/{id}                      does its tree stand
    GET  /tasks/{id}/changes              the task's patch
    GET  /tasks/{id}/diff?from=&to=       what it changed between two steps
    PUT  /tasks/{id}/outputs/{name}       keep a long tool output
    GET  /tasks/{id}/checkpoints          which there are; the newest is made ready to leave
    POST /tasks/{id}/bundles/{name}       {tips, without}: a git bundle of these commits
    PUT  /tasks/{id}/bundles/{name}       a git bundle to take commits from
    POST /tasks/{id}/restore              put the tree to a checkpoint that came by bundle
    POST /tasks/{id}/interrupt            end the task's calls that run, and keep what they did
    *    /tasks/{id}/mcp                  MCP (streamable HTTP, stateless)
    POST /shutdown                        end the worker
"""

import asyncio
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
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agent.access import Claim, RequireClaim
from agent.answers import handlers
from agent.apt import Apt
from agent.calls import Calls
from agent.changes import ChangeReader
from agent.checkpoint_export import CheckpointExport
from agent.checkpoints import Checkpoints
from agent.clones import Clones
from agent.comparison import Comparer
from agent.continuing import Continuing
from agent.errors import BadRequest
from agent.fencing import Generations, RequireNewestLease, read_generation
from agent.forking import Forking
from agent.inside import keep_output
from agent.layout import Layout, checked_name
from agent.leftovers import end_leftovers
from agent.preparation import Preparation
from agent.requests import (
    MAX_OUTPUT_BYTES,
    read_body,
    read_bundle_request,
    read_continue,
    read_fork,
    read_key,
    read_pass,
    read_prepare,
    read_restore_request,
    read_step,
)
from agent.settings import WorkerSettings
from agent.tools import Tools
from agent.trees import Trees
from agent.way_out import WayOut


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
        self._generations = Generations(self._layout.generation)
        self._clones = Clones(self._layout)
        self._trees = Trees(self._layout)
        self._changes = ChangeReader(self._layout, self._trees)
        self._way_out = WayOut(
            None if settings.socket is None else settings.socket.parent,
            Apt(self._layout.caches / "apt"),
        )
        self._preparation = Preparation(self._layout, self._trees, self._changes, self._way_out)
        checkpoints = Checkpoints(self._layout, self._trees)
        self._continuing = Continuing(self._layout, self._trees, checkpoints)
        self._forking = Forking(self._layout, self._trees, checkpoints)
        self._compare = Comparer(self._trees, self._changes)
        self._calls = Calls(self._layout, checkpoints, self._instance)
        self._export = CheckpointExport(self._layout, checkpoints)
        self._tools = Tools(self._version, self._calls)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/warm", self._warm, methods=["POST"]),
                Route("/claim", self._make_claim, methods=["POST"]),
                Route("/repositories", self._repositories),
                Route("/repositories/{name}", self._receive, methods=["PUT"]),
                Route("/prepare", self._prepare, methods=["POST"]),
                Route("/tasks/{task}/pass", self._let_out, methods=["PUT"]),
                Route("/continue", self._continue, methods=["POST"]),
                Route("/fork", self._fork, methods=["POST"]),
                Route("/tasks/{task}", self._stands),
                Route("/tasks/{task}/changes", self._read_changes),
                Route("/tasks/{task}/diff", self._diff),
                Route("/tasks/{task}/outputs/{name}", self._keep_output, methods=["PUT"]),
                Route("/tasks/{task}/checkpoints", self._tell_checkpoints),
                Route("/tasks/{task}/bundles/{name}", self._send_bundle, methods=["POST"]),
                Route("/tasks/{task}/bundles/{name}", self._take_bundle, methods=["PUT"]),
                Route("/tasks/{task}/restore", self._restore, methods=["POST"]),
                Route("/tasks/{task}/interrupt", self._interrupt, methods=["POST"]),
                Route("/tasks/{task}/mcp", _McpEndpoint(self._trees, self._tools, self._way_out)),
                Route("/shutdown", self._shutdown, methods=["POST"]),
            ],
            middleware=[
                Middleware(RequireClaim, claim=self._claim),
                Middleware(RequireNewestLease, generations=self._generations),
            ],
            exception_handlers=handlers(),
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        await self._clones.clear_interrupted()
        await self._trees.clear_interrupted()
        await self._way_out.start()
        yield
        await self._tools.close()
        await self._way_out.close()

    async def _health(self, _request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "status": "ok",
                "version": self._version,
                "instance": self._instance,
                "claimed": self._claim.made,
            }
        )

    async def _warm(self, _request: Request) -> JSONResponse:
        await self._tools.get()
        return JSONResponse({})

    async def _make_claim(self, request: Request) -> JSONResponse:
        self._claim.make(await read_key(request))
        # After the key, since whoever has none must not shut the others out.
        self._generations.admit(read_generation(request.headers))
        # Imported while the orchestrator is busy with the clone: the tools are ready after it.
        self._tools.load()
        return JSONResponse({"claimed": True})

    async def _repositories(self, _request: Request) -> JSONResponse:
        held = await self._clones.held()
        return JSONResponse({"repositories": [asdict(clone) for clone in held]})

    async def _receive(self, request: Request) -> JSONResponse:
        name = checked_name(request.path_params["name"])
        url = request.query_params.get("url", "")
        try:
            await self._clones.receive(name, url, request.stream())
        except ClientDisconnect:
            raise BadRequest("the bundle was cut off") from None
        return JSONResponse({})

    async def _prepare(self, request: Request) -> JSONResponse:
        told = await self._preparation(await read_prepare(request))
        return JSONResponse({"dependencies": told})

    async def _let_out(self, request: Request) -> JSONResponse:
        task = checked_name(request.path_params["task"])
        self._way_out.grant(task, await read_pass(request))
        return JSONResponse({})

    async def _continue(self, request: Request) -> JSONResponse:
        wanted = await read_continue(request)
        await self._calls.interrupt(wanted.earlier)
        await self._calls.settled(wanted.earlier)
        await self._continuing(wanted.task, wanted.earlier, wanted.files)
        return JSONResponse({})

    async def _fork(self, request: Request) -> JSONResponse:
        wanted = await read_fork(request)
        await self._calls.settled(wanted.parent)
        await self._forking(wanted.task, wanted.parent, wanted.step)
        return JSONResponse({})

    async def _stands(self, request: Request) -> JSONResponse:
        self._trees.record(request.path_params["task"])
        return JSONResponse({})

    async def _diff(self, request: Request) -> JSONResponse:
        start, end = read_step(request, "from"), read_step(request, "to")
        task_id = request.path_params["task"]
        await self._calls.settled(task_id)
        changes = await self._compare(task_id, start or 0, end)
        return JSONResponse(asdict(changes))

    async def _read_changes(self, request: Request) -> JSONResponse:
        changes = await self._changes.changes(request.path_params["task"])
        return JSONResponse(asdict(changes))

    async def _keep_output(self, request: Request) -> JSONResponse:
        name = checked_name(request.path_params["name"])
        root = self._trees.root(request.path_params["task"])
        content = await read_body(request, MAX_OUTPUT_BYTES)
        return JSONResponse({"path": await asyncio.to_thread(keep_output, root, name, content)})

    async def _tell_checkpoints(self, request: Request) -> JSONResponse:
        task_id = request.path_params["task"]
        if self._export.is_prepared(task_id):
            await self._calls.settled(task_id)
        return JSONResponse(asdict(await self._export.tell(task_id)))

    async def _send_bundle(self, request: Request) -> StreamingResponse:
        wanted = await read_bundle_request(request)
        task_id, name = request.path_params["task"], request.path_params["name"]
        bundle = await self._export.bundle(task_id, name, wanted.tips, wanted.without)
        return StreamingResponse(bundle, media_type="application/x-git-bundle")

    async def _take_bundle(self, request: Request) -> JSONResponse:
        task_id, name = request.path_params["task"], request.path_params["name"]
        try:
            await self._export.receive(task_id, name, request.stream())
        except ClientDisconnect:
            raise BadRequest("the bundle was cut off") from None
        return JSONResponse({})

    async def _restore(self, request: Request) -> JSONResponse:
        wanted = await read_restore_request(request)
        task_id = request.path_params["task"]
        await self._export.restore(task_id, wanted.key, wanted.states)
        return JSONResponse({})

    async def _interrupt(self, request: Request) -> JSONResponse:
        task_id = request.path_params["task"]
        root = self._trees.root(task_id)
        interrupted = await self._calls.interrupt(task_id)
        # What a command has put into the background would go on to write into the tree.
        await end_leftovers(root)
        return JSONResponse({"interrupted": interrupted})

    async def _shutdown(self, _request: Request) -> Response:
        os.kill(os.getpid(), signal.SIGTERM)
        return Response(status_code=202)


class _McpEndpoint:
    """`/tasks/{task}/mcp`, as an ASGI application."""

    def __init__(self, trees: Trees, tools: Tools, way_out: WayOut) -> None:
        self._trees = trees
        self._tools = tools
        self._way_out = way_out

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path_params: dict[str, Any] = scope["path_params"]
        task_id: str = path_params["task"]
        root: Path = self._trees.root(task_id)
        server = await self._tools.get()
        variables = self._way_out.variables(task_id)
        await server.handle(task_id, root, scope, receive, send, variables=variables)
