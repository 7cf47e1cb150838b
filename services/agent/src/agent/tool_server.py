"""The worker's MCP endpoint: one server whose tools work in the tree of the task asked for.

The MCP SDK takes a few tenths of a second to import, so nothing imports this module before the
worker is up: see `Tools.load`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import Receive, Scope, Send

from mcp_servers import filesystem, git_tools, patch, shell
from mcp_servers.root import task_root

END_SECONDS = 4.0
"""A little above what a tool takes to end a command that does not want to."""


class ToolServer:
    """Serves MCP requests."""

    def __init__(self, version: str) -> None:
        server = MCPServer("berth-worker", version=version, log_level="ERROR")
        for module in (shell, filesystem, patch, git_tools):
            module.register(server)
        # Requests reach us by a private socket and with a key: host names say nothing here.
        security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        self._calls: set[asyncio.Task[object]] = set()
        server.streamable_http_app(stateless_http=True, transport_security=security)
        self._manager = server.session_manager

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which requests can be handled; at its end those under way are cancelled."""
        async with self._manager.run():
            try:
                yield
            finally:
                await self._end_calls()

    async def handle(self, root: Path, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one MCP request with the tools bound to `root`."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a server handles requests in tasks
        self._calls.add(task)
        token = task_root.set(root)
        try:
            await self._manager.handle_request(scope, receive, send)
        finally:
            task_root.reset(token)
            self._calls.discard(task)

    async def _end_calls(self) -> None:
        """Cancel what runs, and give tools the time to end what they started."""
        for call in self._calls:
            # Once is enough: a second cancellation would break off the clearing away.
            if not call.cancelling():
                call.cancel()
        if self._calls:
            await asyncio.wait(self._calls, timeout=END_SECONDS)
