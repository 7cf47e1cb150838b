"""Ways to call the tool servers: in memory, over stdio and over HTTP."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp import Client, StdioServerParameters
from mcp.server import MCPServer
from mcp_types import CallToolResult, TextContent
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_servers import filesystem, git_tools, patch, shell
from mcp_servers.root import task_root

ROOT_HEADER = b"x-test-root"


@dataclass(frozen=True, slots=True)
class Tools:
    """A connected client, with shorter ways to call and to expect refusal."""

    client: Client

    async def call(self, name: str, **arguments: Any) -> CallToolResult:
        return await self.client.call_tool(name, arguments)

    async def text(self, name: str, **arguments: Any) -> str:
        result = await self.call(name, **arguments)
        assert not result.is_error, text_of(result)
        return text_of(result)

    async def refusal(self, name: str, **arguments: Any) -> str:
        result = await self.call(name, **arguments)
        assert result.is_error, text_of(result)
        prefix = f"Error executing tool {name}: "
        text = text_of(result)
        assert text.startswith(prefix), f"a crash or an unprefixed error: {text}"
        return text.removeprefix(prefix)


def text_of(result: CallToolResult) -> str:
    return "\n".join(item.text for item in result.content if isinstance(item, TextContent))


def make_server() -> MCPServer:
    server = MCPServer("test", log_level="ERROR")
    for module in (shell, filesystem, git_tools, patch):
        module.register(server)
    return server


@asynccontextmanager
async def in_memory(root: Path) -> AsyncIterator[Tools]:
    token = task_root.set(root)
    try:
        async with Client(make_server()) as client:
            yield Tools(client)
    finally:
        task_root.reset(token)


@asynccontextmanager
async def over_stdio(module: str, root: Path, log: Path | None = None) -> AsyncIterator[Tools]:
    arguments = ["-m", f"mcp_servers.{module}", "--root", str(root)]
    parameters = StdioServerParameters(command=sys.executable, args=arguments)
    if log is not None:
        script = 'exec "$0" "$@" 2>"$BERTH_TEST_LOG"'
        parameters = StdioServerParameters(
            command="/bin/sh",
            args=["-c", script, sys.executable, *arguments],
            env={"BERTH_TEST_LOG": str(log)},
        )
    async with Client(parameters) as client:
        yield Tools(client)


@asynccontextmanager
async def http_server() -> AsyncIterator[str]:
    """Serve all tools on loopback; each request names its root in a header, as a worker might."""
    server = make_server()
    app = server.streamable_http_app(stateless_http=True)

    async def rooted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            root = dict(scope["headers"]).get(ROOT_HEADER)
            if root is not None:
                task_root.set(Path(root.decode()))
        await app(scope, receive, send)

    async with serving(rooted) as url:
        yield f"{url}/mcp"


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


async def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def tools(root: Path) -> Callable[[], AbstractAsyncContextManager[Tools]]:
    return lambda: in_memory(root)


@pytest.fixture
def stdio() -> Callable[..., AbstractAsyncContextManager[Tools]]:
    return over_stdio


@pytest.fixture
def http() -> Callable[[], AbstractAsyncContextManager[str]]:
    return http_server
