"""The runtime on a Docker engine: one container a workspace."""

import asyncio
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.domain.container import (
    Container,
    ContainerSpec,
    ContainerState,
    Endpoint,
    Limits,
    Reuse,
    decide_reuse,
)
from orchestrator.domain.disk import DiskUse
from orchestrator.errors import (
    ContainerNotFound,
    ContainerStartFailed,
    RuntimeFailure,
    RuntimeUnavailable,
)
from orchestrator.ports import RuntimeInfo
from orchestrator.runtimes.deployment import (
    DEFAULT_DEPLOYMENT,
    Deployment,
    place_of,
)
from orchestrator.runtimes.disk_measure import DISK_IS_WATCHED
from orchestrator.runtimes.docker_container import (
    BIRTH_LABEL,
    DEPLOYMENT_LABEL,
    PLACE_LABEL,
    RUNTIME,
    Inspected,
    Listed,
    creation_body,
)
from orchestrator.runtimes.docker_disk import DockerDisk
from orchestrator.runtimes.docker_engine import DockerEngine
from orchestrator.runtimes.docker_objects import DockerObjects, NameTaken
from orchestrator.runtimes.docker_recipe import DockerRecipe
from orchestrator.runtimes.docker_work import DockerWork, volume_of
from orchestrator.runtimes.gate import StartGate
from orchestrator.runtimes.locks import NamedLocks
from orchestrator.runtimes.readiness import (
    START_SECONDS,
    Readiness,
    is_responsive,
    start_failure,
    wait_until_healthy,
)
from orchestrator.runtimes.socket_directory import SocketDirectories
from orchestrator.settings import Transport

ATTEMPTS = 10
ATTEMPT_PAUSE_SECONDS = 0.1  # the engine reserves a name before the container can be seen
REMOVALS = 5
REMOVAL_PAUSE_SECONDS = 0.3
STOP_SECONDS = 2
FAILURE_LOG_LINES = 20


class DockerRuntime:
    """Runs each container as a Docker container.

    With the transport `socket` containers have no network. With `tcp`, for hosts that sockets
    cannot cross, they have one: a bridge without masquerading and without traffic between
    containers, on which they can still reach the machine itself.

    Args:
        data_dir: Where the workers' sockets lie; the engine must see it under the same path.
        image: The agent's image.
        deployment: Only containers of this deployment are listed and touched.
        transport: How workers are reached.
        start_timeout_seconds: Longest time a worker may take to answer.
        reason: Why this runtime was chosen, for `info`.
        agent_command: What runs inside instead of the image's entry point.
        engine_runtime: The engine's runtime to use, such as `runsc`; None for its default.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        image: str,
        deployment: str = DEFAULT_DEPLOYMENT,
        transport: Transport = Transport.SOCKET,
        start_timeout_seconds: float = START_SECONDS,
        reason: str = "",
        agent_command: Sequence[str] | None = None,
        engine_runtime: str | None = None,
    ) -> None:
        self._image = image
        self._deployment = Deployment(deployment)
        self._transport = transport
        self._start_timeout_seconds = start_timeout_seconds
        self._reason = reason
        self._sockets = SocketDirectories(data_dir)
        self._engine = DockerEngine()
        self._objects = DockerObjects(self._engine)
        self._place = place_of(data_dir)
        self._work = DockerWork(self._objects, self._deployment, self._sockets, self._place)
        self._disk = DockerDisk(
            self._objects, self._work, self._sockets, self._deployment, self._place
        )
        self._recipe = DockerRecipe(
            self._objects,
            deployment=self._deployment,
            sockets=self._sockets,
            place=self._place,
            transport=transport,
            agent_command=agent_command,
            engine_runtime=engine_runtime,
        )
        self._locks = NamedLocks()
        self._gate = StartGate()

    async def ensure(self, spec: ContainerSpec) -> Container:
        """See `ports.Runtime.ensure`."""
        async with self._locks.hold(spec.name):
            for _ in range(ATTEMPTS):
                # Another orchestrator of this deployment may have been quicker; then look again.
                with suppress(NameTaken):
                    return await self._ensure_once(spec)
                await asyncio.sleep(ATTEMPT_PAUSE_SECONDS)
        raise ContainerStartFailed(
            f"The engine has another container named {self._deployment.qualify(spec.name)} that "
            "is not of this deployment. Remove it, or set BERTH_DEPLOYMENT to a name of your own.",
            name=spec.name,
        )

    async def poll(self, name: str) -> Container | None:
        """See `ports.Runtime.poll`."""
        found = await self._objects.inspect(self._deployment.qualify(name))
        if found is None or found.labels.get(DEPLOYMENT_LABEL) != self._deployment.name:
            return None
        return self._container(name, found)

    async def pause(self, name: str) -> None:
        """See `ports.Runtime.pause`."""
        async with self._locks.hold(name):
            if await self.poll(name) is not None:
                await self._objects.pause(self._deployment.qualify(name))

    async def bind(self, pooled: str, spec: ContainerSpec) -> bool:
        """See `ports.Runtime.bind`."""
        async with self._locks.hold(spec.name), self._locks.hold(pooled):
            return await self._work.bind(pooled, spec.name)

    async def fingerprint(self, limits: Limits) -> str:
        """See `ports.Runtime.fingerprint`."""
        return self._recipe.fingerprint(limits, await self._objects.image_id(self._image))

    async def tidy(self, known: Collection[str]) -> Sequence[str]:
        """See `ports.Runtime.tidy`."""
        measuring = await self._disk.tidy()  # first: they keep volumes in use
        return [*measuring, *await self._work.tidy(known)]

    async def stop(self, name: str) -> None:
        """See `ports.Runtime.stop`."""
        qualified = self._deployment.qualify(name)
        async with self._locks.hold(name):
            found = await self.poll(name)
            if found is None:
                return
            if found.state is ContainerState.PAUSED:  # it could not react
                await self._objects.unpause(qualified)
            await self._objects.stop(qualified, STOP_SECONDS)

    async def remove(self, name: str) -> None:
        """See `ports.Runtime.remove`."""
        async with self._locks.hold(name):
            for attempt in range(1, REMOVALS + 1):
                await self._remove_container(name)
                try:
                    await self._disk.give_up(await self._work.home(name))
                    await self._work.remove(name)
                except RuntimeUnavailable:
                    raise
                except RuntimeFailure:
                    # The engine ends the creation of a container that a killed process has asked
                    # for; until then it keeps the volume and cannot be seen.
                    if attempt == REMOVALS:
                        raise
                    await asyncio.sleep(REMOVAL_PAUSE_SECONDS)
                else:
                    return

    async def list(self) -> Sequence[Container]:
        """See `ports.Runtime.list`."""
        found = []
        for listed in await self._objects.listed(f"{DEPLOYMENT_LABEL}={self._deployment.name}"):
            name = self._deployment.plain(listed.engine_name)
            if name is not None:
                found.append(self._container(name, listed))
        return sorted(found, key=lambda container: container.name)

    async def logs(self, name: str, lines: int) -> str:
        """See `ports.Runtime.logs`."""
        text = None
        if await self.poll(name) is not None:
            text = await self._objects.tail(self._deployment.qualify(name), lines)
        if text is None:
            raise ContainerNotFound(f"There is no container {name}.", name=name)
        return text

    async def disk_use(self, name: str) -> DiskUse:
        """See `ports.Runtime.disk_use`."""
        return await self._disk.use(name, self._image)

    async def disk_free(self) -> int | None:
        """See `ports.Runtime.disk_free`."""
        return await self._disk.free()

    async def info(self) -> RuntimeInfo:
        """See `ports.Runtime.info`."""
        limits = (await self._objects.facts()).limits()
        enforced = ["files", "processes", "user", "capabilities", "open files", "file size"]
        enforced.append(DISK_IS_WATCHED)
        missing = [limit for limit, holds in limits.items() if not holds]
        if self._transport is Transport.TCP:
            missing.append("network (with tcp a container has one and reaches this machine)")
        else:
            enforced.append("network")
        enforced += [limit for limit, holds in limits.items() if holds]
        return RuntimeInfo(RUNTIME, self._reason, tuple(enforced), tuple(missing))

    async def close(self) -> None:
        """See `ports.Runtime.close`."""
        await self._engine.close()

    async def _ensure_once(self, spec: ContainerSpec) -> Container:
        found, image = await asyncio.gather(
            self.poll(spec.name), self._objects.image_id(self._image)
        )
        wanted = self._recipe.fingerprint(spec.limits, image)
        how = decide_reuse(found, wanted, in_use=spec.in_use)
        if found is not None and how in {Reuse.REUSE, Reuse.RESUME}:
            if how is Reuse.RESUME:
                await self._objects.unpause(self._deployment.qualify(spec.name))
            alive = partial(self._is_running, spec.name)
            if await is_responsive(found.endpoint, self._start_timeout_seconds, alive):
                return replace(found, state=ContainerState.RUNNING, how=how)
            how = decide_reuse(await self.poll(spec.name), wanted)
            if how in {Reuse.REUSE, Reuse.RESUME}:
                how = Reuse.RECREATE  # runs but hangs
        birth = uuid.uuid4().hex
        try:
            async with self._gate.enter(patient=spec.is_pooled):
                await self._start(spec, image, wanted, how, birth)
            return replace(await self._wait(spec.name), how=how)
        except RuntimeUnavailable:
            raise
        except RuntimeFailure:
            await self._clear_failed(spec.name, birth)
            raise

    async def _start(
        self, spec: ContainerSpec, image: str, wanted: str, how: Reuse, birth: str
    ) -> None:
        qualified = self._deployment.qualify(spec.name)
        if how is Reuse.RECREATE:
            await self._objects.remove(qualified)
        home = await self._work.settle(spec.name)
        if self._transport is Transport.SOCKET:
            self._sockets.make(home)
            self._recipe.write_hosts()  # a reboot may have emptied the place it lies in
        if how in {Reuse.CREATE, Reuse.RECREATE}:
            creation = await self._recipe.creation(spec, image, home, wanted, birth)
            await self._objects.create(qualified, creation_body(creation))
        await self._objects.start(qualified)

    async def _is_running(self, name: str) -> bool:
        now = await self.poll(name)
        return now is not None and now.state is ContainerState.RUNNING

    async def _wait(self, name: str) -> Container:
        found = await self.poll(name)  # a published port is known only now
        readiness = Readiness.ENDED
        if found is not None:
            readiness = await wait_until_healthy(
                found.endpoint, self._start_timeout_seconds, partial(self._is_running, name)
            )
        if found is None or readiness is not Readiness.READY:
            log = await self._objects.tail(self._deployment.qualify(name), FAILURE_LOG_LINES)
            raise start_failure(name, readiness, self._start_timeout_seconds, log or "")
        return replace(found, state=ContainerState.RUNNING)

    async def _clear_failed(self, name: str, birth: str) -> None:
        """Remove what a failed start has left, and the volume if that start made it."""
        await self._remove_container(name)
        labels = await self._objects.volume_labels(volume_of(await self._work.home(name)))
        if labels.get(BIRTH_LABEL) == birth:
            await self._work.remove(name)

    async def _remove_container(self, name: str) -> None:
        if await self.poll(name) is not None:
            await self._objects.remove(self._deployment.qualify(name))

    def _container(self, name: str, facts: Inspected | Listed) -> Container:
        socket: Endpoint | None = None
        if self._transport is Transport.SOCKET:
            socket = self._sockets.endpoint(facts.home)
        made_here = facts.labels.get(PLACE_LABEL) == self._place
        return replace(facts.container(name, socket), made_here=made_here)
