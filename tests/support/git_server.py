"""A real smart-HTTP git server on loopback, which can also misbehave."""

import asyncio
import base64
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

START_SECONDS = 10.0
CHUNK = 64 * 1024
ADVERTISEMENT = "application/x-git-upload-pack-advertisement"


@dataclass
class GitServer:
    """What the server does and what it was asked; change the fields while it runs.

    Args:
        root: Directory of the repositories it serves.
        host: Loopback address it listens on.
        port: The port.
        credentials: `(user, password)` it asks for, if any.
        redirect: Where it sends everybody, if anywhere.
        needs_suffix: Redirect to the address with `.git` where that is missing.
        status: Answer everything with this status.
        garbage: Answer the first question with this.
        endless: List references without end.
        drip: Send one byte of an answer each 50 ms.
    """

    root: Path
    host: str
    port: int
    scheme: str = "http"
    credentials: tuple[str, str] | None = None
    redirect: str | None = None
    needs_suffix: bool = False
    status: int | None = None
    garbage: bytes | None = None
    endless: bool = False
    drip: bool = False
    requests: list[str] = field(default_factory=list)
    fetches_at_once: int = 0
    most_fetches_at_once: int = 0

    def url(self, name: str, host: str | None = None) -> str:
        """The address of a repository below the root."""
        return f"{self.scheme}://{host or self.host}:{self.port}/{name}"

    @property
    def fetches(self) -> int:
        """How many packs were asked for."""
        return sum(line.startswith("POST") and "#fetch" in line for line in self.requests)


@contextlib.asynccontextmanager
async def serve_git(
    root: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    certificate: tuple[Path, Path] | None = None,
) -> AsyncIterator[GitServer]:
    """Serve the bare repositories under `root`, over TLS if a certificate and key are given."""
    listener = socket.create_server((host, port), family=_family(host))
    state = GitServer(root, host, listener.getsockname()[1])
    app = Starlette(
        routes=[Route("/{path:path}", _Endpoint(state).answer, methods=["GET", "POST"])]
    )
    config = uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    if certificate is not None:
        state.scheme = "https"
        config.load()
        config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        config.ssl.load_cert_chain(*certificate)
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(START_SECONDS):
            while not server.started:
                await asyncio.sleep(0.005)
        yield state
    finally:
        server.should_exit = server.force_exit = True
        await serving
        listener.close()


class _Server(uvicorn.Server):
    """Leaves the signal handlers of the test process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Endpoint:
    def __init__(self, server: GitServer) -> None:
        self._server = server

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        is_fetch = b"command=fetch" in body
        self._server.requests.append(
            f"{request.method} {request.url.path}{'#fetch' if is_fetch else ''}"
        )
        refusal = self._refusal(request) or self._misbehaviour()
        if refusal is not None:
            return refusal
        if not is_fetch:
            return await self._from_git(request, body)
        self._server.fetches_at_once += 1
        self._server.most_fetches_at_once = max(
            self._server.most_fetches_at_once, self._server.fetches_at_once
        )
        try:
            return await self._from_git(request, body)
        finally:
            self._server.fetches_at_once -= 1

    def _refusal(self, request: Request) -> Response | None:
        server = self._server
        if server.status is not None:
            return Response("refused", server.status)
        if server.redirect is not None:
            return RedirectResponse(server.redirect)
        if server.needs_suffix and ".git/" not in request.url.path:
            path = request.url.path.replace("/info/refs", ".git/info/refs")
            return RedirectResponse(f"{path}?{request.url.query}", 301)
        if server.credentials is not None:
            expected = base64.b64encode(":".join(server.credentials).encode()).decode()
            if request.headers.get("authorization") != f"Basic {expected}":
                return Response("", 401, {"WWW-Authenticate": 'Basic realm="git"'})
        return None

    def _misbehaviour(self) -> Response | None:
        if self._server.garbage is not None:
            return Response(self._server.garbage, media_type=ADVERTISEMENT)
        if self._server.endless:
            return StreamingResponse(_endless_listing(), media_type=ADVERTISEMENT)
        if self._server.drip:
            return StreamingResponse(_dripping(), media_type=ADVERTISEMENT)
        return None

    async def _from_git(self, request: Request, body: bytes) -> Response:
        process = await asyncio.create_subprocess_exec(
            "git",
            "http-backend",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=self._environment(request, len(body)),
        )
        output, _ = await process.communicate(body)
        head, _, content = output.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200 OK").split()[0])
        return Response(content, status, headers)

    def _environment(self, request: Request, length: int) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PROJECT_ROOT": str(self._server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": request.url.path,
            "QUERY_STRING": request.url.query,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(length),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
        }


async def _endless_listing() -> AsyncIterator[bytes]:
    yield _packet(b"# service=git-upload-pack\n") + b"0000"
    yield _packet(b"1" * 40 + b" HEAD\0agent=endless\n")
    number = 0
    while True:
        lines = (f"{'1' * 40} refs/heads/b{number + i:09}\n" for i in range(2_000))
        yield b"".join(_packet(line.encode()) for line in lines)
        number += 2_000
        await asyncio.sleep(0)


async def _dripping() -> AsyncIterator[bytes]:
    yield _packet(b"# service=git-upload-pack\n") + b"0000"
    while True:
        await asyncio.sleep(0.05)
        yield b"0"


def _packet(line: bytes) -> bytes:
    return b"%04x" % (len(line) + 4) + line


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
