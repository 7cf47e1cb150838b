"""What sandboxes leave behind: processes, control groups, directories; and how it goes."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress

from orchestrator.runtimes.cgroups import Cgroups
from orchestrator.runtimes.deployment import Deployment
from orchestrator.runtimes.freezing import thaw
from orchestrator.runtimes.processes import end_process
from orchestrator.runtimes.sandbox_store import SandboxStore
from orchestrator.runtimes.socket_directory import SocketDirectories

FAILURE_LOG_LINES = 20


class SandboxRemains:
    """Clears up after the sandboxes of one deployment.

    Args:
        store: Their directories.
        cgroups: Their control groups.
        sockets: The directories of their workers' sockets.
        deployment: Whose they are.
    """

    def __init__(
        self,
        store: SandboxStore,
        cgroups: Cgroups,
        sockets: SocketDirectories,
        deployment: Deployment,
    ) -> None:
        self._store = store
        self._cgroups = cgroups
        self._sockets = sockets
        self._deployment = deployment

    async def end(self, name: str, *, grace_seconds: float) -> None:
        """End all processes of a sandbox and take its control groups away.

        Args:
            name: The container; it need not exist.
            grace_seconds: How long its processes may take to end by themselves.
        """
        record = None
        with suppress(FileNotFoundError):
            record = self._store.read(name)
        if record is not None:
            if grace_seconds:
                thaw(record.process)  # it could not react
            await end_process(record.process, grace_seconds)
        await asyncio.to_thread(self._cgroups.remove, self._store.home(name))

    async def delete(self, name: str) -> None:
        """Delete all that is kept of a sandbox whose processes have ended."""
        home = self._store.home(name)
        await asyncio.to_thread(self._store.delete, name)
        self._sockets.remove(home)

    async def clear_failed(self, name: str, *, is_new: bool) -> str:
        """Remove what a failed start has left, also the workspace if it is new; returns the log."""
        await self.end(name, grace_seconds=0)
        log = await asyncio.to_thread(self._store.tail, name, FAILURE_LOG_LINES)
        if is_new:
            await self.delete(name)
        else:
            self._store.forget(name)
        return log

    def tidy(self, known: Collection[str]) -> Sequence[str]:
        """Remove what crashes have left; see `ports.Runtime.tidy`."""
        removed = list(self._store.tidy())
        for name in self._store.names():
            if not self._has_record(name) and name not in known:
                self._store.delete(name)
                removed.append(name)
        homes = {self._store.home(name) for name in self._store.names()}
        for home in set(self._cgroups.names()) - homes:
            self._cgroups.remove(home)
            removed.append(f"control group {home}")
        for home in set(self._sockets.names()) - homes:
            if self._deployment.plain(home) is not None:
                self._sockets.remove(home)
                removed.append(f"socket directory {home}")
        return removed

    def _has_record(self, name: str) -> bool:
        try:
            self._store.read(name)
        except FileNotFoundError:
            return False
        return True
