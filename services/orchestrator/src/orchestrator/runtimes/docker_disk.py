"""What Docker's volumes hold, measured by short-lived containers of their own.

Volumes lie on the engine's machine, where only root can look. So a container of the agent's image
runs our program as root without any right but to read every directory, without a network, on the
volume read-only. It is not in the namespaces of the container that is measured.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

from orchestrator.domain.disk import DiskUse
from orchestrator.errors import ContainerNotFound, RuntimeFailure
from orchestrator.runtimes.deployment import Deployment
from orchestrator.runtimes.disk_measure import (
    MORE_SECONDS,
    WALK_SECONDS,
    free_bytes,
    read_walk,
    walk_argv,
)
from orchestrator.runtimes.docker_container import PLACE_LABEL
from orchestrator.runtimes.docker_objects import DockerObjects, NameTaken
from orchestrator.runtimes.docker_work import DockerWork, volume_of
from orchestrator.runtimes.socket_directory import SocketDirectories

MEASURES_LABEL = "berth.measures"
PREFIX = "berth-measure-"
PYTHON_INSIDE = "/opt/berth/bin/python"  # as in Dockerfile.agent
WORKSPACE_INSIDE = "/measured/workspace"
SOCKETS_INSIDE = "/measured/sockets"
MEMORY_BYTES = 512 * 2**20
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5


class DockerDisk:
    """Measures the work of one deployment's containers.

    Args:
        objects: The engine's things.
        work: Knows where work lies.
        sockets: The directories that containers share with this machine, where they write too.
        deployment: Whose containers they are.
        place: Names the data directory on labels.
    """

    def __init__(
        self,
        objects: DockerObjects,
        work: DockerWork,
        sockets: SocketDirectories,
        deployment: Deployment,
        place: str,
    ) -> None:
        self._objects = objects
        self._work = work
        self._sockets = sockets
        self._labels = {MEASURES_LABEL: deployment.name, PLACE_LABEL: place}
        self._root: Path | None = None

    async def use(self, name: str, image: str) -> DiskUse:
        """What the container of this name holds.

        Args:
            name: The container.
            image: The agent's image.

        Raises:
            ContainerNotFound: There is no work of this name.
            RuntimeFailure: It cannot be measured, or is being measured.
        """
        home = await self._work.home(name)
        if not await self._objects.volume_labels(volume_of(home)):
            # To mount it would make it.
            raise ContainerNotFound(f"There is no container {name}.", name=name)
        began = monotonic()
        measuring = f"{PREFIX}{home}"
        sockets = self._sockets.path(home)
        body = measuring_body(
            await self._objects.image_id(image),
            volume_of(home),
            sockets if sockets.is_dir() else None,
            self._labels,
        )
        await self._objects.remove(measuring)  # of a process that was killed
        output = await self._run(measuring, body)
        return read_walk(output, monotonic() - began)

    async def free(self) -> int | None:
        """What the file system with the volumes has left; None if it is not on this machine."""
        if self._root is None:
            self._root = Path((await self._objects.facts()).root)
        return await free_bytes(self._root)

    async def give_up(self, home: str) -> None:
        """End the measuring of a container's work, which is about to be deleted."""
        await self._objects.remove(f"{PREFIX}{home}")

    async def tidy(self) -> Sequence[str]:
        """Remove measuring containers that a crash has left; returns their names."""
        names = [
            listed.engine_name
            for listed in await self._objects.listed(
                f"{MEASURES_LABEL}={self._labels[MEASURES_LABEL]}"
            )
            if listed.labels.get(PLACE_LABEL) == self._labels[PLACE_LABEL]
        ]
        for name in names:
            await self._objects.remove(name)
        return names

    async def _run(self, measuring: str, body: Mapping[str, object]) -> str:
        creating = asyncio.create_task(self._objects.create(measuring, body))
        try:
            await asyncio.shield(creating)
            await self._objects.start(measuring)
            return await self._output(measuring)
        except NameTaken:
            raise RuntimeFailure(f"{measuring} is another process's.") from None
        finally:
            # The engine creates it also if nobody waits for that any more.
            await asyncio.wait({creating})
            if creating.exception() is None:
                await self._objects.remove(measuring)

    async def _output(self, measuring: str) -> str:
        pause = FIRST_PAUSE_SECONDS
        try:
            async with asyncio.timeout(WALK_SECONDS + MORE_SECONDS):
                while (found := await self._objects.inspect(measuring)) is not None:
                    if found.has_ended:
                        return await self._objects.tail(measuring, 5) or ""
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        except TimeoutError:
            raise RuntimeFailure("The workspace cannot be measured: the process hangs.") from None
        raise RuntimeFailure("The workspace cannot be measured: it is being deleted.")


def measuring_body(
    image: str, volume: str, sockets: Path | None, labels: Mapping[str, str]
) -> dict[str, object]:
    """The request body that creates a measuring container."""
    mounts: list[dict[str, object]] = [
        {
            "Type": "volume",
            "Source": volume,
            "Target": WORKSPACE_INSIDE,
            "ReadOnly": True,
            "VolumeOptions": {"NoCopy": True},
        }
    ]
    if sockets is not None:
        mounts.append(
            {"Type": "bind", "Source": str(sockets), "Target": SOCKETS_INSIDE, "ReadOnly": True}
        )
    roots = [str(mount["Target"]) for mount in mounts]
    return {
        "Image": image,
        "User": "0:0",
        "Entrypoint": walk_argv(PYTHON_INSIDE, roots),
        "Cmd": [],
        "WorkingDir": "/",
        "Labels": dict(labels),
        "NetworkDisabled": True,
        "HostConfig": {
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "CapAdd": ["DAC_READ_SEARCH"],
            "SecurityOpt": ["no-new-privileges"],
            "Memory": MEMORY_BYTES,
            "MemorySwap": MEMORY_BYTES,
            "NanoCpus": 10**9,
            "PidsLimit": 16,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
            "RestartPolicy": {"Name": "no"},
            "Mounts": mounts,
        },
    }
