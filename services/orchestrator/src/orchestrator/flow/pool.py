"""The warm pool: paused containers that nobody owns, with their tools loaded."""

import asyncio
import secrets
from collections import deque

import structlog

from orchestrator.domain.container import Container, ContainerSpec, ContainerState, Limits
from orchestrator.domain.workspace import ID_LENGTH, POOL_PREFIX
from orchestrator.errors import BerthError, RuntimeFailure
from orchestrator.ports import Runtime, Workers

log = structlog.get_logger(__name__)

CHECK_SECONDS = 30.0


class Pool:
    """Keeps a number of containers ready and gives them to workspaces that have none.

    A container of the pool is ready if it is paused: it is paused only once its worker has loaded
    its tools. Nothing is remembered over a restart but that.

    Args:
        runtime: Where containers run.
        workers: Has their tools loaded.
        limits: What a container may use whose workspace has no limits of its own.
        size: How many are kept ready.
    """

    def __init__(self, *, runtime: Runtime, workers: Workers, limits: Limits, size: int) -> None:
        self._runtime = runtime
        self._workers = workers
        self._limits = limits
        self._size = size
        self._ready: deque[str] = deque()
        # A binding that failed is settled by `ensure`, and must not be tried for anybody else.
        self._given: set[str] = set()
        self._wanted = asyncio.Event()
        self._stopped = False

    async def bind(self, spec: ContainerSpec) -> bool:
        """Make a ready container the one of this spec.

        False if none is ready, none is needed, or it failed: then `ensure` does what is left to do.
        """
        if spec.limits != self._limits:
            return False  # it would only be made anew
        while self._ready and await self._runtime.poll(spec.name) is None and self._ready:
            name = self._ready.popleft()
            self._given.add(name)
            self._wanted.set()
            try:
                if await self._runtime.bind(name, spec):
                    return True
                if await self._runtime.poll(name) is not None:  # there is work without a container
                    self._given.discard(name)
                    self._ready.appendleft(name)
                    return False
            except RuntimeFailure as failure:
                log.warning("pool_not_used", code=failure.code, detail=failure.detail)
                return False
        return False

    async def run(self) -> None:
        """Keep the pool filled until stopped; a pool of no containers is emptied once."""
        while not self._stopped:
            try:
                await self.fill()
            except BerthError as failure:
                log.warning("pool_not_filled", code=failure.code, detail=failure.detail)
            except Exception:
                # A defect of ours must not leave the pool empty for good.
                log.exception("pool_broke")
            if not self._size:
                return
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                continue
            finally:
                self._wanted.clear()

    def stop(self) -> None:
        """End `run` once the container that it makes is made."""
        self._stopped = True
        self._wanted.set()

    async def fill(self) -> None:
        """Remove what is not ready, not made as it would be now, or too much; then make what lacks.

        One at a time, so that a task's own start never waits for more than one of ours.

        Raises:
            RuntimeFailure: A container cannot be made or removed.
        """
        wanted = await self._runtime.fingerprint(self._limits) if self._size else ""
        kept: list[str] = []
        for container in await self.containers():
            if self._is_ready(container, wanted) and len(kept) < self._size:
                kept.append(container.name)
            else:
                await self._drop(container.name)
        # Some may have been given away meanwhile.
        self._ready.extend(name for name in kept if name not in {*self._ready, *self._given})
        while len(self._ready) < self._size and not self._stopped:
            self._ready.append(await self._make())

    async def remove(self) -> None:
        """Remove every container of the pool; none is given away any more.

        Raises:
            RuntimeFailure: One cannot be removed.
        """
        self._ready.clear()
        await asyncio.gather(*(self._runtime.remove(each.name) for each in await self.containers()))

    async def containers(self) -> list[Container]:
        """The containers that nobody owns, as far as they are ours."""
        return [
            each
            for each in await self._runtime.list()
            if each.name.startswith(POOL_PREFIX) and each.made_here and each.name not in self._given
        ]

    def _is_ready(self, container: Container, fingerprint: str) -> bool:
        return container.state is ContainerState.PAUSED and container.fingerprint == fingerprint

    async def _drop(self, name: str) -> None:
        if name in self._given:
            return
        self._given.add(name)
        if name in self._ready:
            self._ready.remove(name)
        await self._runtime.remove(name)
        self._given.discard(name)
        log.info("pool_container_removed", container=name)

    async def _make(self) -> str:
        """Start a container, have its tools loaded, pause it."""
        spec = ContainerSpec(POOL_PREFIX + secrets.token_hex(ID_LENGTH // 2), "", self._limits)
        container = await self._runtime.ensure(spec)
        try:
            await self._workers.warm(container)
            await self._runtime.pause(spec.name)
        except BaseException:
            await self._runtime.remove(spec.name)
            raise
        return spec.name
