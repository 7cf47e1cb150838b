"""Where the work of each Docker container lies, and what makes a pooled container somebody's.

A container has a *home*, the name it was made under. Its volume and the directory of its socket are
named by the home and stay for as long as its work does. A container from the pool gets another name
later: then an empty volume under that name, the *marker*, has the home on its label, so that the
work is found again even if the container is lost. Names of volumes and of containers are unique on
an engine, so no two workspaces can come by one home, and no workspace by two.
"""

from collections.abc import Collection, Sequence

from orchestrator.errors import RuntimeFailure, RuntimeUnavailable
from orchestrator.runtimes.deployment import Deployment
from orchestrator.runtimes.docker_container import DEPLOYMENT_LABEL, HOME_LABEL, PLACE_LABEL
from orchestrator.runtimes.docker_objects import DockerObjects, NameTaken
from orchestrator.runtimes.socket_directory import SocketDirectories

VOLUME_PREFIX = "berth-"


class DockerWork:
    """The volumes of one deployment.

    Args:
        objects: The engine's things.
        deployment: Whose they are.
        sockets: The directories of the workers' sockets.
        place: Names the data directory on labels, as proof that a thing is ours.
    """

    def __init__(
        self, objects: DockerObjects, deployment: Deployment, sockets: SocketDirectories, place: str
    ) -> None:
        self._objects = objects
        self._deployment = deployment
        self._sockets = sockets
        self._labels = {DEPLOYMENT_LABEL: deployment.name, PLACE_LABEL: place}

    async def home(self, name: str) -> str:
        """The home of the container of this name, which need not exist."""
        qualified = self._deployment.qualify(name)
        labels = await self._objects.volume_labels(volume_of(qualified))
        return labels.get(HOME_LABEL, qualified)

    async def bind(self, pooled: str, name: str) -> bool:
        """Give a pooled container another name; see `ports.Runtime.bind`."""
        home, wanted = self._deployment.qualify(pooled), self._deployment.qualify(name)
        labels = {**self._labels, HOME_LABEL: home}
        found = await self._objects.make_volume(volume_of(wanted), labels)
        if found.get(HOME_LABEL) != home:
            return False  # the workspace has a volume of its own
        try:
            if await self._objects.rename(home, wanted):
                return True
        except NameTaken:
            pass
        except RuntimeUnavailable:
            raise
        except RuntimeFailure:
            await self._objects.remove_volume(volume_of(wanted))
            raise
        await self._objects.remove_volume(volume_of(wanted))
        return False

    async def settle(self, name: str) -> str:
        """The home of a container that is about to be made.

        A pooled container that was to become this one, and did not, has the volume: it goes.
        """
        home = await self.home(name)
        if home != self._deployment.qualify(name):
            await self._objects.remove(home)
        return home

    async def remove(self, name: str) -> None:
        """Delete a container's work; the container is gone already."""
        home = await self.settle(name)
        await self._objects.remove_volume(volume_of(home))
        await self._objects.remove_volume(volume_of(self._deployment.qualify(name)))
        self._sockets.remove(home)

    async def tidy(self, known: Collection[str]) -> Sequence[str]:
        """Remove what crashes have left; see `ports.Runtime.tidy`."""
        listed = await self._objects.listed(f"{DEPLOYMENT_LABEL}={self._deployment.name}")
        homes = {
            volume.removeprefix(VOLUME_PREFIX): labels.get(HOME_LABEL, "")
            for volume, labels in (await self._objects.volumes(self._labels)).items()
        }
        markers = {name: home for name, home in homes.items() if home not in {name, ""}}
        unbound = {each.engine_name for each in listed}
        # Between its marker and its renaming a pooled container still has its first name.
        whole = {name: home for name, home in markers.items() if home not in unbound}
        kept = {each.home for each in listed}
        for name in homes:
            if name not in markers.keys() - whole.keys() and self._is_known(name, known):
                kept.add(whole.get(name, name))
        removed = [name for name in homes if whole.get(name, name) not in kept]
        removed += [name for name in markers if name not in whole and name not in removed]
        for name in removed:
            await self._objects.remove_volume(volume_of(name))
        return [*(f"volume {volume_of(name)}" for name in removed), *self._remove_sockets(kept)]

    def _is_known(self, qualified: str, known: Collection[str]) -> bool:
        return self._deployment.plain(qualified) in known

    def _remove_sockets(self, kept: Collection[str]) -> Sequence[str]:
        removed = []
        for home in self._sockets.names():
            if self._deployment.plain(home) is not None and home not in kept:
                self._sockets.remove(home)
                removed.append(f"socket directory {home}")
        return removed


def volume_of(qualified: str) -> str:
    """The name of the volume of a home."""
    return f"{VOLUME_PREFIX}{qualified}"
