"""The MCP server's life inside the worker: imported late, started once, ended with the worker."""

import asyncio
import gc
import sys
from typing import TYPE_CHECKING

from agent.calls import Calls

if TYPE_CHECKING:
    from agent.tool_server import ToolServer

SWITCH_SECONDS = 0.0005


class Tools:
    """Holds the MCP server.

    The server lives in one asyncio task from start to end, as the SDK's task group demands.
    """

    def __init__(self, version: str, calls: Calls) -> None:
        self._version = version
        self._calls = calls
        self._ready: asyncio.Future[ToolServer] | None = None
        self._life: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    def load(self) -> None:
        """Begin to import and start the server in the background."""
        if self._life is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._life = asyncio.create_task(self._live(self._ready))

    async def get(self) -> "ToolServer":
        """The running server, started if need be."""
        self.load()
        assert self._ready is not None  # noqa: S101 - load() has set it; for the type checker
        return await asyncio.shield(self._ready)

    async def close(self) -> None:
        """End the server."""
        self._ended.set()
        if self._life is not None:
            await self._life

    async def _live(self, ready: "asyncio.Future[ToolServer]") -> None:
        try:
            server = await asyncio.to_thread(_build_server, self._version, self._calls)
            async with server.running():
                ready.set_result(server)
                await self._ended.wait()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the server
            if not ready.done():
                ready.set_exception(error)


def _build_server(version: str, calls: Calls) -> "ToolServer":
    # Importing makes many objects and no garbage: without collections it takes a quarter less
    # time, and what it made need not be looked through ever again.
    gc.disable()
    # Requests are answered meanwhile: let them in more often than every 5 ms.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        from agent.tool_server import ToolServer  # noqa: PLC0415 - the point of this module

        return ToolServer(version, calls)
    finally:
        sys.setswitchinterval(interval)
        gc.freeze()
        gc.enable()
