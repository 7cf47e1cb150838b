"""The judgement on a body that creates a container which measures a disk.

It runs as root with one capability more, so not even its program may vary.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from orchestrator.engine_proxy.body import BodyPart, read_body, require_same
from orchestrator.engine_proxy.order import Condition, KnownImage, OwnVolume, PlainPath
from orchestrator.engine_proxy.terms import Terms
from orchestrator.errors import EngineCallRefused
from orchestrator.runtimes.docker_container import PLACE_LABEL
from orchestrator.runtimes.docker_disk import MEASURES_LABEL, PREFIX, measuring_body
from orchestrator.runtimes.docker_work import volume_of


class _HostConfig(BodyPart):
    mounts: list[dict[str, object]] = Field(alias="Mounts", min_length=1, max_length=2)


class _Body(BodyPart):
    image: Annotated[str, Field(alias="Image", pattern=r"^sha256:[0-9a-f]{64}$")]
    labels: dict[str, str] = Field(alias="Labels")
    host: _HostConfig = Field(alias="HostConfig")


def judge_measuring(
    name: str, asked: Mapping[str, object], terms: Terms
) -> tuple[Mapping[str, object], tuple[Condition, ...]]:
    """The body to create a measuring container with, and what must hold for that.

    Args:
        name: The name that the container is to have on the engine.
        asked: The body that was sent.
        terms: What is allowed.

    Raises:
        EngineCallRefused: It is not what the orchestrator sends.
    """
    home = name.removeprefix(PREFIX)
    terms.container(home)
    body = read_body(_Body, asked)
    place = body.labels.get(PLACE_LABEL, "")
    if not place.isalnum():
        raise EngineCallRefused(f"The label {PLACE_LABEL} is missing.")
    sockets: Path | None = terms.sockets / home if len(body.host.mounts) > 1 else None
    labels = {MEASURES_LABEL: terms.deployment.name, PLACE_LABEL: place}
    wanted = measuring_body(body.image, volume_of(home), sockets, labels)
    require_same(asked, wanted, "Creating a measuring container")
    found: list[Condition] = [KnownImage(body.image), OwnVolume(volume_of(home))]
    if sockets is not None:
        found.append(PlainPath(sockets, is_directory=True))
    return wanted, tuple(found)
