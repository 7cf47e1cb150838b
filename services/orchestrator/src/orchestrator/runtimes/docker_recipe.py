"""What a Docker container of this deployment is made of."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from orchestrator.domain.container import ContainerSpec, Limits
from orchestrator.runtimes.deployment import Deployment, fingerprint
from orchestrator.runtimes.docker_container import (
    DEPLOYMENT_LABEL,
    FINGERPRINT_LABEL,
    HOME_LABEL,
    PLACE_LABEL,
    VERSION_LABEL,
    WORKSPACE_LABEL,
    Creation,
)
from orchestrator.runtimes.docker_objects import DockerObjects
from orchestrator.runtimes.docker_work import volume_of
from orchestrator.runtimes.socket_directory import SocketDirectories
from orchestrator.settings import Transport

HOSTS = "127.0.0.1 localhost\n::1 localhost\n"


class DockerRecipe:
    """Says how containers are made, and which are made the same way.

    Args:
        objects: The engine's things.
        deployment: Whose they are.
        sockets: The directories of the workers' sockets.
        place: Names the data directory on labels.
        transport: How workers are reached.
        agent_command: What runs inside instead of the image's entry point.
        engine_runtime: The engine's runtime that runs them; None for its default.
    """

    def __init__(
        self,
        objects: DockerObjects,
        *,
        deployment: Deployment,
        sockets: SocketDirectories,
        place: str,
        transport: Transport,
        agent_command: Sequence[str] | None,
        engine_runtime: str | None,
    ) -> None:
        self._objects = objects
        self._deployment = deployment
        self._sockets = sockets
        self._place = place
        self._transport = transport
        self._agent_command = agent_command
        self._engine_runtime = engine_runtime

    async def creation(
        self, spec: ContainerSpec, image: str, home: str, wanted: str, birth: str
    ) -> Creation:
        """All that the engine is told of a new container; a network it needs is made.

        Args:
            spec: What is wanted.
            image: The image's id.
            home: The name its work goes by.
            wanted: Its fingerprint.
            birth: Tells this attempt to make it from others.
        """
        labels = {
            HOME_LABEL: home,
            PLACE_LABEL: self._place,
            DEPLOYMENT_LABEL: self._deployment.name,
            WORKSPACE_LABEL: spec.workspace_id,
            FINGERPRINT_LABEL: wanted,
            VERSION_LABEL: version("berth"),
        }
        creation = Creation(
            spec=spec,
            image=image,
            volume=volume_of(home),
            labels=labels,
            birth=birth,
            command=self._agent_command,
            engine_runtime=self._engine_runtime,
        )
        if self._transport is Transport.TCP:
            network = f"berth-{self._deployment.name}"
            await self._objects.make_network(network, {DEPLOYMENT_LABEL: self._deployment.name})
            return replace(creation, network=network)
        return replace(
            creation,
            sockets=self._sockets.path(home),
            hosts=self.write_hosts(),
        )

    def write_hosts(self) -> Path:
        """See that the file which containers have for /etc/hosts is there; returns its path."""
        return self._sockets.write("hosts", HOSTS)

    def fingerprint(self, limits: Limits, image: str) -> str:
        """The same for containers that are made the same way."""
        return fingerprint(
            image=image,
            memory=limits.memory_bytes,
            cpus=limits.cpus,
            pids=limits.pids,
            open_files=limits.open_files,
            file_bytes=limits.largest_file_bytes,
            engine_runtime=self._engine_runtime,
            transport=self._transport,
            # A container of another orchestrator has its socket where we do not look for it.
            sockets=None if self._transport is Transport.TCP else str(self._sockets.root),
            version=version("berth"),
        )
