"""Scale idle containers down: pause them, later stop them, at last remove them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from orchestrator.domain.idle import IdleAction, IdleLimits, decide_idle
from orchestrator.domain.workspace import Workspace, WorkspaceRecord
from orchestrator.errors import BerthError, RuntimeFailure
from orchestrator.flow.occupancy import Occupancy
from orchestrator.ports import Clock, Runtime, TaskStore

log = structlog.get_logger(__name__)

CHECKS_A_LIMIT = 4
LONGEST_PAUSE_SECONDS = 60.0
SHORTEST_PAUSE_SECONDS = 0.2

Leases = Callable[[], Awaitable[Mapping[str, str]]]
"""The live leases: the executor that holds it, by the workspace's id."""

MayRemove = Callable[[Workspace], Awaitable[bool]]
"""Whether all that is promised of a workspace's work is kept outside its container."""


async def patches_are_kept(_workspace: Workspace) -> bool:
    """A finished task's patch is in Postgres; its tree is promised to nobody."""
    return True


@dataclass(frozen=True, slots=True)
class ReaperParts:
    """What the reaper needs from outside."""

    runtime: Runtime
    occupancy: Occupancy
    tasks: TaskStore
    leases: Leases
    clock: Clock
    executor: str
    may_remove: MayRemove = patches_are_kept


class Reaper:
    """Looks at the containers now and then."""

    def __init__(self, parts: ReaperParts, limits: IdleLimits) -> None:
        self._parts = parts
        self._limits = limits

    async def run(self) -> None:
        """Sweep until cancelled; returns at once if nothing is ever to be done."""
        shortest = self._limits.shortest
        if shortest is None:
            return
        pause = max(min(shortest / CHECKS_A_LIMIT, LONGEST_PAUSE_SECONDS), SHORTEST_PAUSE_SECONDS)
        while True:
            await asyncio.sleep(pause)
            try:
                await self.sweep()
            except BerthError as failure:  # the next sweep may find the engine or database back
                log.warning("sweep_failed", code=failure.code, detail=failure.detail)
            except Exception:
                # A defect of ours must not end the sweeps for good.
                log.exception("sweep_broke")

    async def sweep(self) -> None:
        """Do what is due about every container.

        Raises:
            BerthError: The engine or the database does not answer.
        """
        records = await self._records()
        for container in await self._parts.runtime.list():
            record = records.get(container.name)
            if record is None or not container.made_here:
                continue
            idle = self._idle_seconds(record)
            due = decide_idle(container.state, idle, self._limits, in_use=False, may_remove=True)
            if due is not IdleAction.LEAVE:
                await self._act(container.name)

    async def _act(self, name: str) -> None:
        """Decide anew behind the container's door, and act there: no task can begin meanwhile."""
        async with self._parts.occupancy.at(name) as door:
            if door.users:
                return
            action = await self._decide(name)
            try:
                await self._carry_out(action, name)
            except RuntimeFailure as failure:
                log.warning("idle_container_left", container=name, action=action.value,
                            code=failure.code, detail=failure.detail)  # fmt: skip

    async def _decide(self, name: str) -> IdleAction:
        record = (await self._records()).get(name)
        container = await self._parts.runtime.poll(name)
        if record is None or container is None:
            return IdleAction.LEAVE
        idle, in_use = self._idle_seconds(record), await self._is_in_use(record.workspace)
        action = decide_idle(container.state, idle, self._limits, in_use=in_use, may_remove=True)
        if action is IdleAction.REMOVE and not await self._parts.may_remove(record.workspace):
            return decide_idle(container.state, idle, self._limits, in_use=in_use, may_remove=False)
        return action

    async def _carry_out(self, action: IdleAction, name: str) -> None:
        runtime = self._parts.runtime
        if action is IdleAction.LEAVE:
            return
        if action is IdleAction.PAUSE:
            await runtime.pause(name)
        elif action is IdleAction.STOP:
            await runtime.stop(name)
        else:
            await runtime.remove(name)
        log.info("idle_container", container=name, action=action.value)

    async def _is_in_use(self, workspace: Workspace) -> bool:
        holder = (await self._parts.leases()).get(workspace.id, self._parts.executor)
        if holder != self._parts.executor:
            return True
        unfinished = await self._parts.tasks.unfinished()
        return any(task.workspace.id == workspace.id for task in unfinished)

    async def _records(self) -> dict[str, WorkspaceRecord]:
        workspaces = await self._parts.tasks.workspaces()
        return {each.workspace.container_name: each for each in workspaces}

    def _idle_seconds(self, record: WorkspaceRecord) -> float:
        return (self._parts.clock.now() - record.last_used_at).total_seconds()
