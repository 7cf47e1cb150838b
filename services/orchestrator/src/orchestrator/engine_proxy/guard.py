"""Looks up whether what an order builds on holds, and turns it into a request."""

import os
import stat
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel, Field, ValidationError

from orchestrator.engine_proxy.creation import HOSTS
from orchestrator.engine_proxy.engine import Engine, Request
from orchestrator.engine_proxy.order import (
    ID,
    Condition,
    KnownImage,
    Order,
    OwnContainer,
    OwnNetwork,
    OwnVolume,
    PlainPath,
)
from orchestrator.engine_proxy.terms import Terms
from orchestrator.errors import EngineCallRefused, EngineObjectUnknown, EngineUnreachable

Model = TypeVar("Model", bound=BaseModel)


class _Config(BaseModel):
    labels: dict[str, str] | None = Field(default=None, alias="Labels")


class _Mount(BaseModel):
    type: str = Field(alias="Type")
    source: str = Field(default="", alias="Source")


class _Container(BaseModel):
    id: str = Field(alias="Id", pattern=r"^[0-9a-f]{64}$")
    config: _Config = Field(alias="Config")
    mounts: list[_Mount] = Field(default_factory=list, alias="Mounts")


class _Labelled(BaseModel):
    labels: dict[str, str] | None = Field(default=None, alias="Labels")


class _Image(BaseModel):
    id: str = Field(alias="Id")


class Guard:
    """Admits orders whose conditions hold.

    Args:
        engine: Where the facts are looked up.
        terms: What is allowed.
    """

    def __init__(self, engine: Engine, terms: Terms) -> None:
        self._engine = engine
        self._terms = terms

    async def admit(self, order: Order, version: str) -> Request:
        """The request that an order becomes.

        Args:
            order: The order.
            version: The prefix of the interface's version.

        Raises:
            EngineCallRefused: A condition does not hold.
            EngineObjectUnknown: What the order is about does not exist for the deployment.
            EngineUnreachable: The engine does not say.
        """
        path = order.path
        for condition in order.conditions:
            container = await self._check(condition, version)
            if container:
                path = path.replace(ID, container)
        return Request(order.method, version + path, order.query, order.body)

    async def _check(self, condition: Condition, version: str) -> str:
        """Require a condition; returns the container's id if it is about one, else nothing."""
        match condition:
            case OwnContainer():
                return await self._container(condition, version)
            case OwnVolume():
                found = await self._labels(f"{version}/volumes/{condition.name}")
                if found is not None or not condition.may_be_missing:
                    what = f"volume {condition.name}"
                    self._require_own(found, what, hides=condition.hides)
            case OwnNetwork():
                found = await self._labels(f"{version}/networks/{condition.name}")
                self._require_own(found, f"network {condition.name}", hides=condition.hides)
            case KnownImage():
                await self._require_image(condition.id, version)
            case PlainPath():
                require_plain(condition)
        return ""

    async def _container(self, condition: OwnContainer, version: str) -> str:
        said = await self._engine.look_up(f"{version}/containers/{condition.name}/json")
        found = None if said is None else _read(_Container, said)
        labels = None if found is None else found.config.labels or {}
        what = f"container {condition.name}"
        if labels is None or not self._terms.owns_container(labels):
            self._require_own(labels, what, hides=condition.hides)
        if found is None:
            raise _unknown(what)
        if condition.is_mounted:
            self._require_mounts(found)
        return found.id

    def _require_mounts(self, container: _Container) -> None:
        # The engine mounts at each start what lies there then, and follows links.
        for mount in container.mounts:
            if mount.type == "volume":
                continue
            source = Path(mount.source)
            if mount.type != "bind" or source not in self._mountable(source.name):
                raise EngineCallRefused(f"{mount.source} is mounted, which is not ours.")
            require_plain(PlainPath(source, is_directory=source.name != HOSTS))

    def _mountable(self, name: str) -> set[Path]:
        if name != HOSTS:
            self._terms.container(name)
        return {self._terms.sockets / name}

    async def _labels(self, path: str) -> dict[str, str] | None:
        said = await self._engine.look_up(path)
        return None if said is None else _read(_Labelled, said).labels or {}

    def _require_own(self, labels: dict[str, str] | None, what: str, *, hides: bool) -> None:
        if labels is None:
            raise _unknown(what)
        if not self._terms.owns(labels):
            reason = f"The {what} is not of the deployment {self._terms.deployment.name}."
            raise EngineObjectUnknown(reason, stranger=True) if hides else EngineCallRefused(reason)

    async def _require_image(self, wanted: str, version: str) -> None:
        for name in self._terms.images:
            said = await self._engine.look_up(f"{version}/images/{quote(name, safe='/:@')}/json")
            if said is not None and _read(_Image, said).id == wanted:
                return
        raise EngineCallRefused(
            f"The image {wanted} is none of {', '.join(self._terms.images)} as they are now."
        )


def require_plain(condition: PlainPath) -> None:
    """Require that a path leads to a directory or a file of one name, without a symbolic link.

    Raises:
        EngineCallRefused: It does not, or nothing is there.
    """
    path = condition.path
    try:
        modes = [os.lstat(each).st_mode for each in (path, *path.parents)]
    except OSError as error:
        raise EngineCallRefused(
            f"The proxy cannot see {path} ({error.strerror}); it needs the data directory under "
            "the path that the engine knows."
        ) from None
    is_right = stat.S_ISDIR if condition.is_directory else stat.S_ISREG
    if not is_right(modes[0]) or not all(stat.S_ISDIR(mode) for mode in modes[1:]):
        what = "directory" if condition.is_directory else "file"
        raise EngineCallRefused(f"{path} is not a {what}, or a symbolic link leads there.")


def _unknown(what: str) -> EngineObjectUnknown:
    return EngineObjectUnknown(f"No such {what.partition(' ')[0]}: {what.partition(' ')[2]}")


def _read(model: type[Model], said: object) -> Model:
    try:
        return model.model_validate(said)
    except ValidationError:
        raise EngineUnreachable("The Docker engine's answer lacks what is needed.") from None
