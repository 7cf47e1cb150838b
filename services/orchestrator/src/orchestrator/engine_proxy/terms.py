"""What one deployment may do on an engine, and the names that are its own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.domain.workspace import CONTAINER_PREFIX, POOL_PREFIX
from orchestrator.errors import EngineCallRefused
from orchestrator.runtimes.deployment import Deployment
from orchestrator.runtimes.docker_container import DEPLOYMENT_LABEL
from orchestrator.runtimes.docker_disk import MEASURES_LABEL
from orchestrator.runtimes.docker_disk import PREFIX as MEASURING_PREFIX
from orchestrator.runtimes.docker_work import VOLUME_PREFIX
from orchestrator.settings import Transport

_NAME = re.compile(rf"(?:{CONTAINER_PREFIX}|{POOL_PREFIX})[A-Za-z0-9_-]{{1,64}}")


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator has said on the command line.

    Args:
        deployment: Whose calls these are.
        images: Names of the images that containers may be made from.
        sockets: The directory of the workers' sockets, the only one mounted into containers.
        transport: Whether containers have no network, or the deployment's own.
        engine_runtimes: The engine's runtimes of which a container must name one; none: it must
            name none and so gets the engine's default.
    """

    deployment: Deployment
    images: tuple[str, ...]
    sockets: Path
    transport: Transport = Transport.SOCKET
    engine_runtimes: frozenset[str] = field(default_factory=frozenset)

    @property
    def label(self) -> str:
        """The label of all that is the deployment's, as filters have it."""
        return f"{DEPLOYMENT_LABEL}={self.deployment.name}"

    @property
    def network(self) -> str:
        """The deployment's network, if it has one."""
        return f"berth-{self.deployment.name}"

    @property
    def measuring_label(self) -> str:
        """The label of the containers that measure the deployment's disks."""
        return f"{MEASURES_LABEL}={self.deployment.name}"

    def owns(self, labels: Mapping[str, str] | None) -> bool:
        """True if a thing with these labels is the deployment's."""
        return (labels or {}).get(DEPLOYMENT_LABEL) == self.deployment.name

    def owns_container(self, labels: Mapping[str, str]) -> bool:
        """True if a container with these labels is the deployment's, or measures its disks."""
        return self.owns(labels) or labels.get(MEASURES_LABEL) == self.deployment.name

    def require_container(self, name: str) -> None:
        """Require the name of a container, or of one that measures the disk of one.

        Raises:
            EngineCallRefused: The deployment cannot have one of this name.
        """
        self.container(name.removeprefix(MEASURING_PREFIX))

    def container(self, name: str) -> str:
        """The plain name of the container that is named so on the engine.

        Raises:
            EngineCallRefused: The deployment cannot have one of this name.
        """
        plain = self.deployment.plain(name)
        if plain is None or not self._is_own_name(name):
            raise EngineCallRefused(
                f"{shown(name)} is not the name of a container of {self.deployment.name}."
            )
        return plain

    def volume(self, name: str) -> str:
        """The home whose volume this is.

        Raises:
            EngineCallRefused: The deployment cannot have one of this name.
        """
        home = name.removeprefix(VOLUME_PREFIX)
        if home == name or not self._is_own_name(home):
            raise EngineCallRefused(
                f"{shown(name)} is not the name of a volume of {self.deployment.name}."
            )
        return home

    def _is_own_name(self, name: str) -> bool:
        plain = self.deployment.plain(name)
        # Such a name has a dash, so the engine cannot take it for the start of an id.
        return (
            plain is not None
            and self.deployment.qualify(plain) == name
            and _NAME.fullmatch(plain) is not None
        )


SHOWN_CHARACTERS = 80


def shown(value: object) -> str:
    """A value of a request for a message: short, and in one line."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
