"""A Postgres that is not the service's own, to be killed and to come back."""

import asyncio
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.victims import postmaster_of

from orchestrator.storage.postgres import EmbeddedPostgres


@dataclass(slots=True)
class OutsidePostgres:
    """A cluster under a directory; it stays away when it was killed, until it is started again."""

    directory: Path
    _server: EmbeddedPostgres | None = field(default=None)

    async def start(self) -> str:
        """Start it; the address is the same each time."""
        self._server = EmbeddedPostgres(self.directory)
        address = await self._server.start()
        # Nobody is to bring it back but ourselves.
        assert self._server._watcher is not None
        self._server._watcher.cancel()
        return address

    async def kill(self) -> None:
        """End it with SIGKILL."""
        os.kill(postmaster_of(self.directory), signal.SIGKILL)
        await self.stop()

    async def stop(self) -> None:
        """End what runs of it."""
        if self._server is not None:
            await asyncio.shield(self._server.stop())
            self._server = None
