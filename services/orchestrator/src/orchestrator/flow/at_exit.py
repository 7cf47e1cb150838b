"""What becomes of containers when the service ends in order."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from orchestrator.domain.container import ContainerState
from orchestrator.errors import DatabaseUnavailable, RuntimeFailure
from orchestrator.flow.lease import Lease
from orchestrator.flow.pool import Pool
from orchestrator.ports import Runtime

log = structlog.get_logger(__name__)

RUNS = frozenset({ContainerState.RUNNING, ContainerState.PAUSED})


async def stop_containers(runtime: Runtime, lease: Lease, pool: Pool) -> None:
    """Stop, side by side, what we used and what runs from earlier; the pool goes.

    What other orchestrators work in is left alone. A failure is logged: the others are stopped all
    the same.
    """
    try:
        elsewhere = await lease.in_use_elsewhere()
    except DatabaseUnavailable as failure:
        log.warning("users_elsewhere_unknown", detail=failure.detail)
        elsewhere = frozenset()
    try:
        await pool.remove()
        found = await runtime.list()
    except RuntimeFailure as failure:
        log.warning("containers_not_listed", code=failure.code, detail=failure.detail)
        found = ()
    here = {each.name for each in found if each.made_here and each.state in RUNS}
    await _each(runtime.stop, (here | lease.used) - elsewhere)


async def remove_containers(runtime: Runtime) -> None:
    """Remove every container of the deployment with its work.

    Raises:
        RuntimeFailure: They cannot be listed.
    """
    await _each(runtime.remove, [each.name for each in await runtime.list()])


async def _each(act: Callable[[str], Awaitable[None]], names: Iterable[str]) -> None:
    async def one(name: str) -> None:
        try:
            await act(name)
        except RuntimeFailure as failure:
            log.warning("container_left", container=name, code=failure.code, detail=failure.detail)

    await asyncio.gather(*(one(name) for name in names))
