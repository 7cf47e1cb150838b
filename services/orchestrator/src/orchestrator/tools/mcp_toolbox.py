"""The tools of one MCP server as a `ports.Toolbox`."""

import json
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, cast

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from orchestrator.domain.conversation import ToolResult, ToolSpec
from orchestrator.errors import BerthError, WorkerUnreachable
from orchestrator.ports import Progress, Toolbox

PROTOCOL = "2026-07-28"
"""The stateless protocol version: our own servers speak it, so no handshake is needed."""

KEY = "berth/key"
"""Where in a request's `_meta` the idempotency key of a call is."""

# The latter two stand for answers that are no MCP at all, as of a worker that was started anew.
GONE = frozenset(
    {
        types.CONNECTION_CLOSED,
        types.INTERNAL_ERROR,
        types.METHOD_NOT_FOUND,
        types.INVALID_REQUEST,
    }
)
MAX_PAGES = 10
MAX_WHY = 300
"""Most characters of what a server says of its failure; it may say anything."""
T = TypeVar("T")

CALL_SECONDS = 3_700.0
"""A little above the longest timeout the `bash` tool takes; budgets end a call earlier."""


@asynccontextmanager
async def mcp_toolbox(url: str, http: httpx2.AsyncClient) -> AsyncIterator[Toolbox]:
    """Connect to the MCP server at `url` for as long as the context lasts.

    An error of ours that is raised inside the context leaves it as it is; the SDK's task groups
    would wrap it.

    Raises:
        WorkerUnreachable: The connection was lost. The SDK then cancels whatever runs inside the
            context, so the error appears where the context ends.
    """
    transport = streamable_http_client(url, http_client=http, terminate_on_close=False)
    try:
        async with Client(transport, mode=PROTOCOL, read_timeout_seconds=CALL_SECONDS) as client:
            yield McpToolbox(client)
    except BaseExceptionGroup as group:
        raise _telling(group) from group


class McpToolbox:
    """Lists and calls the tools of a connected server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def tools(self) -> Sequence[ToolSpec]:
        """The server's tools, all pages."""
        found: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await _reached(self._client.list_tools(cursor=cursor))
            found += page.tools
            cursor = page.next_cursor
            if cursor is None:
                return [_spec(tool) for tool in found]
        raise _gone(f"its list of tools has more than {MAX_PAGES} pages")

    async def call(
        self,
        name: str,
        arguments: dict[str, object],
        *,
        key: str = "",
        progress: Progress | None = None,
    ) -> ToolResult:
        """Call a tool; see `ports.Toolbox.call`."""
        report = progress

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            if report is not None and message:
                await report(message)

        params = types.CallToolRequestParams(
            name=name,
            arguments=arguments,
            _meta=cast("types.RequestParamsMeta", {KEY: key}) if key else None,
        )
        # Not `call_tool`: for each new client it asks for the list of tools after the answer, to
        # check structured content that nobody reads.
        answer = self._client.session.send_request(
            types.CallToolRequest(params=params),
            types.CallToolResult,
            progress_callback=tell if report else None,
        )
        try:
            result = await _reached(answer)
        except MCPError as error:
            return ToolResult(error.message, is_error=True)
        return ToolResult(_text(result), is_error=bool(result.is_error))


async def _reached(answer: Awaitable[T]) -> T:
    """Await an answer; that the server is gone becomes our own error."""
    try:
        return await answer
    except MCPError as error:
        if error.code in GONE:
            raise _gone(error.message) from error
        raise
    except ValidationError as error:
        raise _gone("its answer has another form than MCP's") from error


def _telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error of a group that says what happened."""
    errors = list(_leaves(group))
    for error in errors:
        if isinstance(error, BerthError):
            return error
    for error in errors:
        if isinstance(error, httpx2.TransportError):
            return _gone(type(error).__name__)
    return errors[0]


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _gone(why: str) -> WorkerUnreachable:
    return WorkerUnreachable(
        f"The container's worker stopped answering ({why[:MAX_WHY]}). What it did so far is kept "
        "where it can be; send the task again."
    )


def _spec(tool: types.Tool) -> ToolSpec:
    hint = tool.annotations is not None and tool.annotations.read_only_hint
    return ToolSpec(
        tool.name, tool.description or "", json.dumps(tool.input_schema), read_only=bool(hint)
    )


def _text(result: types.CallToolResult) -> str:
    """The text a model gets; what is not text is named."""
    parts = []
    for block in result.content:
        if isinstance(block, types.TextContent):
            parts.append(block.text)
        elif isinstance(block, types.ImageContent | types.AudioContent):
            parts.append(f"[{block.type} of type {block.mime_type}, not shown]")
        else:
            parts.append(f"[{block.type}, not shown]")
    return "\n".join(parts)
