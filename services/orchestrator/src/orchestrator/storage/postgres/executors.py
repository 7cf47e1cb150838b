"""Which orchestrators are alive, in Postgres."""

from collections.abc import Mapping, Sequence

from orchestrator.domain.fleet import Identity, Steadiness, lapse
from orchestrator.errors import ExecutorBuried, ExecutorReplaced
from orchestrator.ports import Clock
from orchestrator.storage.postgres.pool import Database
from orchestrator.storage.postgres.queries import load_queries


class PostgresExecutors:
    """`ports.Executors` on a migrated database.

    Args:
        database: With a connection that is free when a heartbeat is due.
        identity: Who we are.
        heartbeat_seconds: Time between two heartbeats; the same for all executors.
        clock: For how long we were heard ourselves; who is dead is told by the database's clock.
    """

    def __init__(
        self, database: Database, identity: Identity, heartbeat_seconds: float, clock: Clock
    ) -> None:
        self._database = database
        self._queries = load_queries()
        self._clock = clock
        self._steadiness = Steadiness(lapse(heartbeat_seconds))
        self.lapse_seconds = lapse(heartbeat_seconds)
        self.identity = identity

    @property
    def may_judge(self) -> bool:
        """Whether we were heard for long enough to call another executor dead."""
        return self._steadiness.may_judge(self._clock.monotonic())

    async def register(self) -> None:
        """See `ports.Executors.register`."""
        await self._database.rows(self._queries.register_executor, *self._we())

    async def beat(self) -> Mapping[str, int]:
        """See `ports.Executors.beat`."""
        rows = await self._database.rows(self._queries.beat, *self._we())
        if not rows:
            await self._tell_why()
        self._steadiness.heard(self._clock.monotonic())
        return {row["workspace_id"]: row["generation"] for row in rows if row["workspace_id"]}

    async def bury(self) -> Sequence[str]:
        """See `ports.Executors.bury`."""
        if not self.may_judge:
            return []
        own = self.identity.executor_id
        rows = await self._database.rows(self._queries.bury_executors, own, self.lapse_seconds)
        return sorted(row["id"] for row in rows)

    async def known(self) -> frozenset[str]:
        """See `ports.Executors.known`."""
        rows = await self._database.rows(self._queries.known_executors)
        return frozenset(row["id"] for row in rows)

    async def resign(self) -> None:
        """See `ports.Executors.resign`."""
        await self._database.rows(self._queries.resign_executor, *self._we())

    async def _tell_why(self) -> None:
        own = self.identity.executor_id
        if own in await self.known():
            raise ExecutorReplaced(
                f"Another process runs under the id {own} of this orchestrator: its data directory "
                "was copied. Stop one of them and delete the file `executor` in its directory.",
                executor=own,
            )
        raise ExecutorBuried(
            f"The orchestrator {own} was silent for {self.lapse_seconds:g} s or more, and others "
            "may have taken its tasks.",
            executor=own,
        )

    def _we(self) -> tuple[str, str]:
        return self.identity.executor_id, self.identity.instance
