"""One orchestrator among several: it says that it lives, and takes over from the dead."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from orchestrator.domain.fleet import LOOKS_A_BEAT, dead_owners, lost_leases
from orchestrator.errors import BerthError, ExecutorBuried, ExecutorReplaced
from orchestrator.flow.running import RunningTasks
from orchestrator.flow.shares import LeaseShares
from orchestrator.ports import Engine, Executors

log = structlog.get_logger(__name__)


class Fleet:
    """Keeps this orchestrator alive in the eyes of the others, and looks after theirs.

    Args:
        executor_id: Our own lasting id.
        executors: Who is alive.
        shares: The leases of this process.
        running: The tasks of this process.
        engine: Hands over the tasks of the dead.
        heartbeat_seconds: Time between two heartbeats.
        replaced: Called when another process has taken our id; it must end this one.
    """

    def __init__(
        self,
        *,
        executor_id: str,
        executors: Executors,
        shares: LeaseShares,
        running: RunningTasks,
        engine: Engine,
        heartbeat_seconds: float,
        replaced: Callable[[], None],
    ) -> None:
        self._executor_id = executor_id
        self._executors = executors
        self._shares = shares
        self._running = running
        self._engine = engine
        self._heartbeat_seconds = heartbeat_seconds
        self._replaced = replaced

    async def live(self) -> None:
        """Write heartbeats until cancelled, and leave the tasks whose leases are lost."""
        await self._every(self._heartbeat_seconds, self.beat)

    async def look_after_others(self) -> None:
        """Take over the tasks of the dead until cancelled."""
        await self._every(self._heartbeat_seconds / LOOKS_A_BEAT, self.take_over)

    async def beat(self) -> None:
        """Write one heartbeat and act on what the database says of us.

        An outage alone costs nothing: when the database is back and nobody has taken a lease
        meanwhile, the tasks go on.
        """
        believed = self._shares.believed()
        try:
            told = await self._executors.beat()
        except ExecutorBuried as buried:
            log.warning("executor_buried", detail=buried.detail)
            self._leave_all()
            await self._executors.register()
            return
        except ExecutorReplaced as replaced:
            log.critical("executor_replaced", detail=replaced.detail)
            self._leave_all()
            self._replaced()
            return
        # What was given up while we asked is not lost.
        still = self._shares.believed().items()
        lost = dict(lost_leases(believed, told).items() & still)
        if lost:
            log.warning("leases_lost", workspaces=sorted(lost))
        for workspace_id, generation in lost.items():
            for task_id in self._shares.lose(workspace_id, generation):
                self._running.abandon(task_id)
        await self._shares.tidy(told)

    async def take_over(self) -> None:
        """Have the tasks of dead orchestrators run by the living, us among them.

        Whoever is dead is buried first, so that it learns of it before it goes on. Taking over
        what somebody else takes over at the same time changes nothing.
        """
        for executor_id in await self._executors.bury():
            log.warning("executor_dead", executor=executor_id)
        owners = await self._engine.owners()
        dead = dead_owners(owners, await self._executors.known(), self._executor_id)
        if dead:
            count = await self._engine.recover(sorted(dead))
            log.warning("tasks_taken_over", executors=sorted(dead), count=count)

    def _leave_all(self) -> None:
        for workspace_id, generation in self._shares.believed().items():
            self._shares.lose(workspace_id, generation)
        self._running.abandon_all()

    async def _every(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await act()
            except BerthError as failure:
                log.warning("fleet_waits", act=act.__name__, detail=failure.detail)
            except Exception:
                # One failed look must not end all later ones: then we would be dead to the others.
                log.exception("fleet_broke", act=act.__name__)
            await asyncio.sleep(seconds)
