"""The worker's MCP endpoint: one server whose tools work in the tree of the task asked for.

The MCP SDK takes a few tenths of a second to import, so nothing imports this module before the
worker is up: see `Tools.load`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import CallToolResult, InputRequiredResult, TextContent
from starlette.types import Receive, Scope, Send

from agent.calls import END_SECONDS, Calls, Result
from agent.errors import WorkerError
from agent.journal import Call
from mcp_servers import filesystem, git_tools, patch, shell
from mcp_servers.root import task_root, task_variables

log = logging.getLogger(__name__)

KEY = "berth/key"
"""Where in a request's `_meta` a call's key is: within a task the same key is the same call."""

_task: ContextVar[str] = ContextVar("task")


class ToolServer:
    """Serves MCP requests."""

    def __init__(self, version: str, calls: Calls) -> None:
        server = _Server(version, calls)
        for module in (shell, filesystem, patch, git_tools):
            module.register(server)
        # Requests reach us by a private socket and with a key: host names say nothing here.
        security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        self._keyed = calls
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
                await asyncio.gather(self._keyed.close(), self._end_calls())

    async def handle(
        self,
        task_id: str,
        root: Path,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        variables: Mapping[str, str],
    ) -> None:
        """Handle one MCP request with the tools bound to a task.

        Args:
            task_id: The task.
            root: The root of its tree.
            scope: The request, as are `receive` and `send`.
            variables: Environment variables that its commands get besides ours.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a server handles requests in tasks
        self._calls.add(task)
        tokens = task_root.set(root), _task.set(task_id), task_variables.set(variables)
        try:
            await self._manager.handle_request(scope, receive, send)
        finally:
            task_root.reset(tokens[0])
            _task.reset(tokens[1])
            task_variables.reset(tokens[2])
            self._calls.discard(task)

    async def _end_calls(self) -> None:
        """Cancel what runs, and give tools the time to end what they started."""
        for call in self._calls:
            # Once is enough: a second cancellation would break off the clearing away.
            if not call.cancelling():
                call.cancel()
        if self._calls:
            await asyncio.wait(self._calls, timeout=END_SECONDS)


class _Server(MCPServer[Any]):
    """Runs calls that have a key by way of `Calls`."""

    def __init__(self, version: str, calls: Calls) -> None:
        super().__init__("berth-worker", version=version, log_level="ERROR")
        self._keyed = calls

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """See `MCPServer.call_tool`; what is wrong with a key is an error of the tool."""
        key = _key(context)
        if key is None:
            return await super().call_tool(name, arguments, context)
        run_tool = super().call_tool

        async def work() -> Result:
            try:
                result = await run_tool(name, arguments, context)
            except Exception as error:
                if isinstance(error, UnexpectedToolError) or not isinstance(error, ToolError):
                    log.exception("tool %s broke", name)
                text = TextContent(type="text", text=str(error))
                result = CallToolResult(content=[text], is_error=True)
            return result.model_dump(mode="json", by_alias=True)

        try:
            call = Call.of(_task.get(), key, name, arguments, mutating=await self._mutates(name))
            return CallToolResult.model_validate(await self._keyed.run(call, work))
        except WorkerError as error:
            raise ToolError(str(error)) from error
        except OSError as error:
            log.exception("call %s of task %s cannot be recorded", key, _task.get())
            why = error.strerror or type(error).__name__
            raise ToolError(f"the workspace cannot be used: {why}") from error

    async def _mutates(self, name: str) -> bool:
        for tool in await self.list_tools():
            if tool.name == name:
                return tool.annotations is None or not tool.annotations.read_only_hint
        return True


def _key(context: Context[Any, Any] | None) -> str | None:
    meta: Mapping[str, object] | None = None
    if context is not None:
        meta = context.request_context.meta
    if meta is None or KEY not in meta:
        return None
    return str(meta[KEY])
