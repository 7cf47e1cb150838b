"""The leases of this process, each shared by the tasks that run here in its workspace."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from orchestrator.errors import DatabaseUnavailable
from orchestrator.ports import Leases

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Share:
    generation: int
    tasks: set[str] = field(default_factory=set)


class LeaseShares:
    """Takes a workspace's lease for its first task here and gives it up after its last.

    Args:
        leases: Where leases are recorded.
        stopping: Once it is set leases are kept: until this process has ended its containers,
            nobody else shall use them.
    """

    def __init__(self, leases: Leases, stopping: asyncio.Event) -> None:
        self._leases = leases
        self._stopping = stopping
        self._shares: dict[str, _Share] = {}
        self._changing: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def share(self, workspace_id: str, task_id: str) -> AsyncIterator[int]:
        """Hold the lease for a task while the context lasts; yields its generation."""
        async with self._lock(workspace_id):
            share = self._shares.get(workspace_id)
            if share is None:
                share = _Share(await self._leases.acquire(workspace_id))
                self._shares[workspace_id] = share
            share.tasks.add(task_id)
        try:
            yield share.generation
        finally:
            share.tasks.discard(task_id)
            if not share.tasks and not self._stopping.is_set():
                await self._give_up(workspace_id, share)

    def believed(self) -> Mapping[str, int]:
        """The generations of the leases we think we hold, by workspace."""
        return {workspace_id: share.generation for workspace_id, share in self._shares.items()}

    def lose(self, workspace_id: str, generation: int) -> frozenset[str]:
        """Count a lease as lost; returns the tasks that worked under it.

        The next task of the workspace acquires it anew.
        """
        share = self._shares.get(workspace_id)
        if share is None or share.generation != generation:
            return frozenset()
        del self._shares[workspace_id]
        return frozenset(share.tasks)

    async def tidy(self, told: Mapping[str, int]) -> None:
        """Give up what the database says is ours and no task here uses.

        An earlier process has left it, or our own word did not arrive.
        """
        for workspace_id, generation in told.items():
            changing = self._changing.get(workspace_id)
            idle = workspace_id not in self._shares and (changing is None or not changing.locked())
            if idle and not self._stopping.is_set():
                await self._leases.release(workspace_id, generation)

    async def _give_up(self, workspace_id: str, share: _Share) -> None:
        async with self._lock(workspace_id):
            if share.tasks or self._shares.get(workspace_id) is not share:
                return
            del self._shares[workspace_id]
            try:
                await self._leases.release(workspace_id, share.generation)
            except DatabaseUnavailable as failure:
                # The heartbeat's `tidy` does it as soon as the database is back.
                log.warning("lease_not_released", workspace=workspace_id, detail=failure.detail)

    def _lock(self, workspace_id: str) -> asyncio.Lock:
        return self._changing.setdefault(workspace_id, asyncio.Lock())
