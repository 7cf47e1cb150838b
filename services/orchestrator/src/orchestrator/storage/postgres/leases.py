"""Who may use which workspace, in Postgres."""

import asyncio
import secrets
from collections.abc import Sequence

from orchestrator.domain.fleet import HeldLease
from orchestrator.errors import StaleLease
from orchestrator.storage.postgres.executors import PostgresExecutors
from orchestrator.storage.postgres.pool import Database
from orchestrator.storage.postgres.queries import load_queries
from orchestrator.storage.postgres.text import storable_text

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
_PAUSE_GROWTH = 1.5


class PostgresLeases:
    """`ports.Leases` on a migrated database.

    Every method may raise `DatabaseUnavailable` when Postgres does not answer, or not in time.

    Args:
        database: The database.
        executors: Who we are, and whether we may call others dead.
    """

    def __init__(self, database: Database, executors: PostgresExecutors) -> None:
        self._database = database
        self._executors = executors
        self._queries = load_queries()

    async def acquire(self, workspace_id: str) -> int:
        """See `ports.Leases.acquire`."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            generation = await self._try(workspace_id)
            if generation is not None:
                return generation
            # Not all at the same moment, when many wait for the same holder.
            await asyncio.sleep(pause * (0.5 + secrets.randbelow(1_000) / 1_000))
            pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE_SECONDS)

    async def confirm(self, workspace_id: str, generation: int) -> None:
        """See `ports.Leases.confirm`."""
        row = await self._database.row(self._queries.read_lease, storable_text(workspace_id))
        ours = (self._executors.identity.executor_id, generation, True)
        if row is None or (row["executor_id"], row["generation"], row["held"]) != ours:
            raise stale_lease(workspace_id, generation)

    async def release(self, workspace_id: str, generation: int) -> None:
        """See `ports.Leases.release`."""
        own = self._executors.identity.executor_id
        await self._database.rows(
            self._queries.release_lease, storable_text(workspace_id), own, generation
        )

    async def held(self) -> Sequence[HeldLease]:
        """See `ports.Leases.held`."""
        rows = await self._database.rows(self._queries.held_leases, self._executors.lapse_seconds)
        return [
            HeldLease(row["workspace_id"], row["executor_id"], row["generation"]) for row in rows
        ]

    async def _try(self, workspace_id: str) -> int | None:
        executors = self._executors
        row = await self._database.row(
            self._queries.acquire_lease,
            storable_text(workspace_id),
            executors.identity.executor_id,
            executors.identity.instance,
            executors.may_judge,
            executors.lapse_seconds,
        )
        return None if row is None else int(row["generation"])


def stale_lease(workspace_id: str, generation: int) -> StaleLease:
    """The error for a generation that is not the workspace's any more."""
    return StaleLease(
        f"The lease {generation} on workspace {workspace_id} was taken over by another "
        "orchestrator, which goes on with its tasks.",
        workspace=workspace_id,
        generation=generation,
    )
