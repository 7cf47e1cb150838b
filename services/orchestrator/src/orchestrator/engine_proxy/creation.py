"""The judgement on a body that creates a container.

Such a body can ask for the whole machine in more ways than anybody can list, and each release of
the engine adds some. So nothing is searched for: the few values that may vary are taken out and
checked, and the body is written anew by the function with which the orchestrator writes it. Where
the two differ, something was asked for that the orchestrator never asks for.
"""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from orchestrator.domain.container import ContainerSpec, Limits
from orchestrator.engine_proxy.body import BodyPart, read_body, require_same
from orchestrator.engine_proxy.order import Condition, KnownImage, OwnNetwork, OwnVolume, PlainPath
from orchestrator.engine_proxy.terms import Terms, shown
from orchestrator.errors import EngineCallRefused
from orchestrator.runtimes.docker_container import (
    BIRTH_LABEL,
    DEPLOYMENT_LABEL,
    FINGERPRINT_LABEL,
    HOME_LABEL,
    PLACE_LABEL,
    VERSION_LABEL,
    WORKSPACE_LABEL,
    Creation,
    creation_body,
)
from orchestrator.runtimes.docker_work import volume_of
from orchestrator.settings import Transport

HOSTS = "hosts"
BILLION = 10**9

_OWN_LABELS = frozenset(
    {
        DEPLOYMENT_LABEL,
        FINGERPRINT_LABEL,
        HOME_LABEL,
        PLACE_LABEL,
        VERSION_LABEL,
        WORKSPACE_LABEL,
    }
)
_LABEL = re.compile(r"berth\.[a-z]{1,32}")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9._+-]{0,128}")
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")

# Zero and less mean "no limit" to the engine.
_Limit = Annotated[int, Field(gt=0, le=2**50)]


class _Ulimit(BodyPart):
    name: str = Field(alias="Name")
    hard: int = Field(alias="Hard")


class _VolumeOptions(BodyPart):
    labels: dict[str, str] = Field(alias="Labels")


class _Mount(BodyPart):
    options: _VolumeOptions | None = Field(default=None, alias="VolumeOptions")


class _HostConfig(BodyPart):
    memory: _Limit = Field(alias="Memory")
    nano_cpus: _Limit = Field(alias="NanoCpus")
    pids: _Limit = Field(alias="PidsLimit")
    ulimits: list[_Ulimit] = Field(alias="Ulimits")
    mounts: list[_Mount] = Field(alias="Mounts", min_length=1)
    runtime: str | None = Field(default=None, alias="Runtime")

    def ulimit(self, name: str) -> int:
        """The limit of this name; 0 if there is none."""
        return next((each.hard for each in self.ulimits if each.name == name), 0)


class _Body(BodyPart):
    image: str = Field(alias="Image")
    labels: dict[str, str] = Field(alias="Labels")
    command: list[str] | None = Field(default=None, alias="Entrypoint")
    host: _HostConfig = Field(alias="HostConfig")


def judge_creation(
    name: str, asked: Mapping[str, object], terms: Terms
) -> tuple[Mapping[str, object], tuple[Condition, ...]]:
    """The body to create a container with, and what must hold for that.

    Args:
        name: The name that the container is to have on the engine.
        asked: The body that was sent.
        terms: What is allowed.

    Raises:
        EngineCallRefused: It is not what the orchestrator sends; the first difference is named.
    """
    plain = terms.container(name)
    creation = _creation(plain, read_body(_Body, asked), terms)
    wanted = creation_body(creation)
    require_same(asked, wanted, "Creating a container")
    return wanted, _conditions(creation)


def _creation(plain: str, body: _Body, terms: Terms) -> Creation:
    labels = _checked_labels(body.labels, terms)
    home = labels.get(HOME_LABEL, "")
    terms.container(home)
    options = body.host.mounts[0].options
    birth = "" if options is None else options.labels.get(BIRTH_LABEL, "")
    if _LABEL_VALUE.fullmatch(birth) is None:
        raise EngineCallRefused(f"The label {BIRTH_LABEL} cannot be {shown(birth)}.")
    is_tcp = terms.transport is Transport.TCP
    return Creation(
        spec=ContainerSpec(
            name=plain,
            workspace_id=labels.get(WORKSPACE_LABEL, ""),
            limits=_limits(body.host),
            labels={each: value for each, value in labels.items() if each not in _OWN_LABELS},
        ),
        image=_image(body.image),
        volume=volume_of(home),
        labels={each: value for each, value in labels.items() if each in _OWN_LABELS},
        birth=birth,
        sockets=None if is_tcp else terms.sockets / home,
        hosts=None if is_tcp else terms.sockets / HOSTS,
        network=terms.network if is_tcp else None,
        command=body.command,
        engine_runtime=_engine_runtime(body.host.runtime, terms),
    )


def _checked_labels(labels: Mapping[str, str], terms: Terms) -> Mapping[str, str]:
    for name, value in labels.items():
        # Other programs on the machine act on labels: a router publishes, a composer removes.
        if _LABEL.fullmatch(name) is None or _LABEL_VALUE.fullmatch(value) is None:
            raise EngineCallRefused(f"The label {shown(name)} cannot be {shown(value)}.")
    if not terms.owns(labels):
        raise EngineCallRefused(f"The label {terms.label} is missing.")
    return labels


def _limits(host: _HostConfig) -> Limits:
    open_files, file_bytes = host.ulimit("nofile"), host.ulimit("fsize")
    if open_files <= 0 or file_bytes <= 0:
        raise EngineCallRefused("HostConfig.Ulimits must bound nofile and fsize.")
    return Limits(
        memory_bytes=host.memory,
        cpus=host.nano_cpus / BILLION,
        pids=host.pids,
        open_files=open_files,
        file_bytes=file_bytes,
        disk_bytes=file_bytes,  # the engine is told of the smaller one only
    )


def _image(image: str) -> str:
    if _IMAGE_ID.fullmatch(image) is None:
        raise EngineCallRefused(f"Image is {shown(image)} and must be the id of an image.")
    return image


def _engine_runtime(runtime: str | None, terms: Terms) -> str | None:
    allowed = terms.engine_runtimes or {None}
    if runtime not in allowed:
        expected = ", ".join(sorted(terms.engine_runtimes)) or "left out"
        raise EngineCallRefused(f"HostConfig.Runtime is {shown(runtime)} and must be {expected}.")
    return runtime


def _conditions(creation: Creation) -> tuple[Condition, ...]:
    found: list[Condition] = [
        KnownImage(creation.image),
        OwnVolume(creation.volume, may_be_missing=True),
    ]
    if creation.network is not None:
        found.append(OwnNetwork(creation.network))
    if creation.sockets is not None:
        found.append(PlainPath(creation.sockets, is_directory=True))
    if creation.hosts is not None:
        found.append(PlainPath(creation.hosts, is_directory=False))
    return tuple(found)
