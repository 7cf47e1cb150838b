"""Executors of one database for tests, with clocks that tests hold."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestrator.domain.fleet import Identity
from orchestrator.storage.postgres import Database, PostgresExecutors, PostgresLeases

HEARTBEAT_SECONDS = 100.0
"""Long enough that nobody dies but by `silence`."""


@dataclass(slots=True)
class HeldClock:
    """A clock that stands still until it is told to go on."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds


@dataclass(slots=True)
class Member:
    """One executor and its leases."""

    database: Database
    executor_id: str
    clock: HeldClock = field(default_factory=HeldClock)
    executors: PostgresExecutors = field(init=False)
    leases: PostgresLeases = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Become another process with the same id."""
        identity = Identity(self.executor_id, secrets.token_hex(8))
        self.executors = PostgresExecutors(self.database, identity, HEARTBEAT_SECONDS, self.clock)
        self.leases = PostgresLeases(self.database, self.executors)

    async def settle(self) -> None:
        """Be heard for long enough to judge others."""
        for _ in range(5):
            await self.executors.beat()
            self.clock.seconds += HEARTBEAT_SECONDS
        await self.executors.beat()

    async def silence(self) -> None:
        """Have been silent for longer than an executor may be."""
        await self.database.rows(
            "UPDATE executors SET heartbeat_at = heartbeat_at - interval '1 hour' WHERE id = $1",
            self.executor_id,
        )

    async def can_acquire(self, workspace_id: str) -> int | None:
        """The generation, or None if somebody else keeps us waiting."""
        try:
            return await asyncio.wait_for(self.leases.acquire(workspace_id), 0.1)
        except TimeoutError:
            return None


@asynccontextmanager
async def members(url: str, *names: str) -> AsyncIterator[Sequence[Member]]:
    """Registered executors that may judge each other."""
    database = await Database.open(url)
    try:
        made = [Member(database, name) for name in names]
        for member in made:
            await member.executors.register()
        for member in made:
            await member.settle()
        yield made
    finally:
        await database.close()
