"""A real smart-HTTP git server on loopback, which can also misbehave."""

import asyncio
import base64
import contextlib
import os
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

START_SECONDS = 60.0
CHUNK = 64 * 1024
RESULT = "application/x-git-upload-pack-result"
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
        endless_pack: Send a pack without end.
        bomb: Answer with a small compressed body that becomes very large.
        refuses_pushes: Answer 403 to who wants to push.
        drops_pushes: Take this many pushes and close the connection before the answer.
        echoes: Send what a request was authorized with back, in the reason of a refusal.
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
    endless_pack: bool = False
    bomb: bool = False
    refuses_pushes: bool = False
    drops_pushes: int = 0
    echoes: bool = False
    authorizations: list[str | None] = field(default_factory=list)
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
        is_push = request.method == "POST" and request.url.path.endswith("git-receive-pack")
        self._server.authorizations.append(request.headers.get("authorization"))
        self._server.requests.append(
            f"{request.method} {request.url.path}{'#fetch' if is_fetch else ''}"
        )
        if is_fetch and self._server.endless_pack:
            return StreamingResponse(_endless_pack(), media_type=RESULT)
        if is_push and self._server.drops_pushes:
            self._server.drops_pushes -= 1
            await self._from_git(request, body)
            return Response("", 502)
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
                return self._unauthorized(request)
        is_push = "git-receive-pack" in str(request.url)
        if is_push and server.refuses_pushes:
            return Response("read only", 403)
        return None

    def _unauthorized(self, request: Request) -> Response:
        said = request.headers.get("authorization", "") if self._server.echoes else ""
        decoded = base64.b64decode(said.removeprefix("Basic ")).decode() if said else ""
        headers = {"WWW-Authenticate": 'Basic realm="git"', "Content-Type": "text/plain"}
        return Response(f"{said} {decoded}", 401, headers)

    def _misbehaviour(self) -> Response | None:
        if self._server.garbage is not None:
            return Response(self._server.garbage, media_type=ADVERTISEMENT)
        if self._server.endless:
            return StreamingResponse(_endless_listing(), media_type=ADVERTISEMENT)
        if self._server.bomb:
            headers = {"Content-Encoding": "gzip"}
            return Response(_bomb(), media_type=ADVERTISEMENT, headers=headers)
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
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.receivepack",
            "GIT_CONFIG_VALUE_0": "true",
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


async def _endless_pack() -> AsyncIterator[bytes]:
    yield _packet(b"packfile\n")
    yield _packet(b"\x01PACK" + (2).to_bytes(4, "big") + (1_000_000).to_bytes(4, "big"))
    while True:
        # Blobs of random bytes, each as git packs one: type and length, then zlib's stream.
        content = os.urandom(48_000)
        length = len(content)
        head = bytes([0x80 | 3 << 4 | length & 15, 0x80 | length >> 4 & 127, length >> 11])
        yield _packet(b"\x01" + head + zlib.compress(content, 0))
        await asyncio.sleep(0)


def _bomb() -> bytes:
    """A list of references that takes a gigabyte, in a megabyte."""
    line = _packet(b"1" * 40 + b" refs/heads/" + b"b" * 200 + b"\n") * 4_096
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [squeezer.compress(_packet(b"# service=git-upload-pack\n") + b"0000")]
    parts += [squeezer.compress(line) for _ in range(1_000)]
    return b"".join((*parts, squeezer.flush()))


async def _dripping() -> AsyncIterator[bytes]:
    yield _packet(b"# service=git-upload-pack\n") + b"0000"
    while True:
        await asyncio.sleep(0.05)
        yield b"0"


def _packet(line: bytes) -> bytes:
    return b"%04x" % (len(line) + 4) + line


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
