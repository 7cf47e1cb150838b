"""The engine's containers, volumes, networks and images, each reached by its name there."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TypeVar

from docker import APIClient
from docker.errors import APIError, NotFound

from orchestrator.errors import ContainerStartFailed, RuntimeFailure, RuntimeUnavailable
from orchestrator.runtimes.docker_container import EngineFacts, Inspected, Listed
from orchestrator.runtimes.docker_engine import DockerEngine, explanation, image_id, missing_image

REMOVAL_SECONDS = 15.0
PAUSE_SECONDS = 0.05
FREEZE_ATTEMPTS = 3
NETWORK_OPTIONS = {
    "com.docker.network.bridge.enable_icc": "false",
    "com.docker.network.bridge.enable_ip_masquerade": "false",
}

Answer = TypeVar("Answer")


class NameTaken(Exception):
    """The engine has a container of this name already."""


class DockerObjects:
    """What we do to things on an engine; missing things raise nothing where that is the goal.

    Every method raises `RuntimeUnavailable` if the engine does not answer, and `RuntimeFailure`
    for errors that nothing here expects.
    """

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine

    async def facts(self) -> EngineFacts:
        """What the engine says about itself."""
        return EngineFacts.model_validate(await self._call(lambda client: client.info()))

    async def image_id(self, image: str) -> str:
        """The id of an image.

        Raises:
            RuntimeUnavailable: The engine has no such image.
        """
        try:
            return await self._engine.call(lambda client: image_id(client, image))
        except NotFound as error:
            raise RuntimeUnavailable(missing_image(image), image=image) from error

    async def inspect(self, container: str) -> Inspected | None:
        """A container, or None if there is none."""
        try:
            answer = await self._engine.call(lambda client: client.inspect_container(container))
        except NotFound:
            return None
        return Inspected.model_validate(answer)

    async def listed(self, label: str) -> Sequence[Listed]:
        """All containers with a label, given as `name=value`."""
        answer = await self._call(
            lambda client: client.containers(all=True, filters={"label": label})
        )
        return [Listed.model_validate(entry) for entry in answer]

    async def create(self, container: str, body: Mapping[str, object]) -> None:
        """Create a container.

        Raises:
            NameTaken: There is one of this name.
            ContainerStartFailed: The engine refused.
        """

        def post(client: APIClient) -> None:
            # The stubs lack it.
            client.create_container_from_config(dict(body), container)  # type: ignore[no-untyped-call]

        try:
            await self._engine.call(post)
        except APIError as error:
            if error.status_code == HTTPStatus.CONFLICT:
                raise NameTaken from error
            raise ContainerStartFailed(
                f"The engine cannot create {container}: {explanation(error)}"
            ) from error

    async def start(self, container: str) -> None:
        """Start a container; one that runs is left as it is.

        Raises:
            ContainerStartFailed: The engine refused or failed.
        """
        try:
            await self._call(lambda client: client.start(container))
        except RuntimeUnavailable:
            raise
        except RuntimeFailure as error:
            raise ContainerStartFailed(
                f"The engine cannot start {container}: {error.detail}"
            ) from error

    async def pause(self, container: str) -> None:
        """Freeze a container; one that does not run, or is frozen already, is left as it is.

        With the first version of control groups the kernel may give up on a busy machine, and lets
        the container go on; so it is tried again.
        """
        for attempt in range(1, FREEZE_ATTEMPTS + 1):
            try:
                await self._unless_gone(lambda client: client.pause(container), HTTPStatus.CONFLICT)
            except RuntimeUnavailable:
                raise
            except RuntimeFailure:
                if attempt == FREEZE_ATTEMPTS:
                    raise
            else:
                return

    async def unpause(self, container: str) -> None:
        """Let a paused container go on; one that is not paused is left as it is."""
        await self._unless_gone(lambda client: client.unpause(container), HTTPStatus.CONFLICT)

    async def rename(self, container: str, name: str) -> bool:
        """Give a container another name; False if there is no such container.

        Raises:
            NameTaken: Another container has that name.
        """
        try:
            await self._engine.call(lambda client: client.rename(container, name))
        except NotFound:
            return False
        except APIError as error:
            if error.status_code == HTTPStatus.CONFLICT:
                raise NameTaken from error
            raise RuntimeFailure(f"The Docker engine refused: {explanation(error)}") from error
        return True

    async def stop(self, container: str, grace_seconds: int) -> None:
        """Stop a container."""
        await self._unless_gone(lambda client: client.stop(container, timeout=grace_seconds))

    async def remove(self, container: str) -> None:
        """Remove a container and wait until it is gone, also if somebody else removes it."""
        await self._unless_gone(
            lambda client: client.remove_container(container, force=True), HTTPStatus.CONFLICT
        )
        deadline = asyncio.get_running_loop().time() + REMOVAL_SECONDS
        while await self.inspect(container) is not None:
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeFailure(f"The Docker engine does not get rid of {container}.")
            await asyncio.sleep(PAUSE_SECONDS)

    async def tail(self, container: str, lines: int) -> str | None:
        """The end of a container's output, or None if there is no container."""
        try:
            text = await self._engine.call(
                lambda client: client.logs(container, stdout=True, stderr=True, tail=lines)
            )
        except NotFound:
            return None
        return bytes(text).decode(errors="replace")

    async def volume_labels(self, volume: str) -> Mapping[str, str]:
        """The labels of a volume; none if there is no such volume."""
        try:
            answer = await self._engine.call(lambda client: client.inspect_volume(volume))
        except NotFound:
            return {}
        return dict(answer.get("Labels") or {})

    async def make_volume(self, volume: str, labels: Mapping[str, str]) -> Mapping[str, str]:
        """Make a volume unless there is one; returns the labels it then has."""
        answer = await self._call(
            lambda client: client.create_volume(name=volume, labels=dict(labels))
        )
        return dict(answer.get("Labels") or {})

    async def volumes(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """The labels of all volumes that have these."""
        wanted = [f"{name}={value}" for name, value in labels.items()]
        answer = await self._call(lambda client: client.volumes(filters={"label": wanted}))
        return {each["Name"]: each["Labels"] or {} for each in answer.get("Volumes") or ()}

    async def remove_volume(self, volume: str) -> None:
        """Remove a volume."""
        await self._unless_gone(lambda client: client.remove_volume(volume))

    async def make_network(self, network: str, labels: Mapping[str, str]) -> None:
        """Make a bridge without traffic between containers or to the outside, if there is none."""
        try:
            await self._engine.call(lambda client: client.inspect_network(network))
        except NotFound:
            await self._unless_gone(
                lambda client: client.create_network(
                    network, "bridge", NETWORK_OPTIONS, check_duplicate=True, labels=dict(labels)
                ),
                HTTPStatus.CONFLICT,
            )

    async def _call(self, action: Callable[[APIClient], Answer]) -> Answer:
        try:
            return await self._engine.call(action)
        except APIError as error:
            raise RuntimeFailure(f"The Docker engine refused: {explanation(error)}") from error

    async def _unless_gone(self, action: Callable[[APIClient], object], *also: HTTPStatus) -> None:
        try:
            await self._engine.call(action)
        except APIError as error:
            if error.status_code not in {HTTPStatus.NOT_FOUND, *also}:
                raise RuntimeFailure(f"The Docker engine refused: {explanation(error)}") from error
