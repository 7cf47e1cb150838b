"""Take over the containers that are there when the orchestrator starts."""

import asyncio
from dataclasses import dataclass

import structlog

from orchestrator.domain.adoption import Adoption, decide_adoption
from orchestrator.domain.container import Container, ContainerState
from orchestrator.domain.workspace import owner_of
from orchestrator.errors import RuntimeFailure
from orchestrator.flow.occupancy import Occupancy
from orchestrator.flow.reap import Leases
from orchestrator.ports import Runtime, TaskStore, Workers

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database says: containers by name, and executors by workspace id.

    `owned` are the containers of workspaces that may be used again; a scratch workspace is used by
    its one task only.
    """

    owned: frozenset[str]
    unfinished: frozenset[str]
    foreign: frozenset[str]

    def is_foreign(self, container: Container) -> bool:
        return owner_of(container.name) in self.foreign


class Adopt:
    """Looks at every container of the deployment once, before any task runs.

    Args:
        runtime: Where containers run.
        workers: Asks whether they are healthy.
        tasks: Knows whose they are.
        occupancy: Learns which of them earlier tasks still run in.
        leases: The live leases.
        executor: Our own id in them.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        workers: Workers,
        tasks: TaskStore,
        occupancy: Occupancy,
        leases: Leases,
        executor: str,
    ) -> None:
        self._runtime = runtime
        self._workers = workers
        self._tasks = tasks
        self._occupancy = occupancy
        self._leases = leases
        self._executor = executor

    async def __call__(self) -> None:
        """Adopt, replace or remove each container; what cannot be touched is logged and left.

        Raises:
            RuntimeUnavailable: The engine does not answer.
            StorageFailure: The database does not.
        """
        known = await self._known()
        found = await self._runtime.list()
        owned = [each for each in found if owner_of(each.name)]  # the others are the pool's
        await asyncio.gather(*(self._settle(each, known) for each in owned))
        # Work of a live orchestrator's workspace is known too, so it stays.
        for rest in await self._runtime.tidy(known.owned | known.unfinished):
            log.warning("leftover_removed", what=rest)

    async def _known(self) -> _Known:
        unfinished = frozenset(
            task.workspace.container_name for task in await self._tasks.unfinished()
        )
        workspaces = [each.workspace for each in await self._tasks.workspaces()]
        leases = await self._leases()
        return _Known(
            frozenset(each.container_name for each in workspaces if not each.is_scratch),
            unfinished,
            frozenset(id_ for id_, executor in leases.items() if executor != self._executor),
        )

    async def _settle(self, container: Container, known: _Known) -> None:
        name, is_foreign = container.name, known.is_foreign(container)
        runs = container.state is ContainerState.RUNNING
        decision = decide_adoption(
            container,
            is_known=name in known.owned,
            is_foreign=is_foreign,
            is_unfinished=name in known.unfinished,
            is_healthy=runs and not is_foreign and await self._workers.is_healthy(container),
        )
        try:
            await self._carry_out(decision, name, is_unfinished=name in known.unfinished)
        except RuntimeFailure as failure:
            log.warning("container_not_settled", container=name, decision=decision.value,
                        code=failure.code, detail=failure.detail)  # fmt: skip
        else:
            log.info("container_found", container=name, decision=decision.value)

    async def _carry_out(self, decision: Adoption, name: str, *, is_unfinished: bool) -> None:
        if decision is Adoption.ADOPT and is_unfinished:
            # Its calls go on; a newer image must wait until they are done.
            await self._occupancy.keep(name)
        elif decision is Adoption.REPLACE:
            await self._runtime.stop(name)
        elif decision is Adoption.REMOVE:
            await self._runtime.remove(name)
