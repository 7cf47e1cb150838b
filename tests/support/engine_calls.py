"""Calls to a Docker engine, as the orchestrator and others make them."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.domain.container import ContainerSpec, Limits
from orchestrator.engine_proxy.terms import Terms
from orchestrator.runtimes.deployment import Deployment
from orchestrator.runtimes.docker_container import Creation, creation_body
from orchestrator.runtimes.docker_work import volume_of
from orchestrator.settings import Transport

DEPLOYMENT = "mine"
NAME = "repo-0123456789abcdef"
QUALIFIED = f"{NAME}.{DEPLOYMENT}"
PLACE = "0123456789ab"
SOCKETS = Path("/srv/berth/run")
IMAGE_ID = "sha256:" + "0123456789abcdef" * 4
TERMS = Terms(Deployment(DEPLOYMENT), ("berth-agent:1",), SOCKETS)
TCP_TERMS = Terms(Deployment(DEPLOYMENT), ("berth-agent:1",), SOCKETS, Transport.TCP)
LIMITS = Limits(memory_bytes=2**29, cpus=1.1, pids=64)


def labels(home: str = QUALIFIED, deployment: str = DEPLOYMENT) -> dict[str, str]:
    """The labels of a container."""
    return {
        "berth.home": home,
        "berth.place": PLACE,
        "berth.deployment": deployment,
        "berth.workspace": NAME.removeprefix("repo-"),
        "berth.fingerprint": "0123456789abcdef",
        "berth.version": "0.1.0",
    }


def creation(
    *,
    sockets: Path = SOCKETS,
    image: str = IMAGE_ID,
    limits: Limits = LIMITS,
    is_tcp: bool = False,
    engine_runtime: str | None = None,
    command: tuple[str, ...] | None = None,
    deployment: str = DEPLOYMENT,
    spec_labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The body that creates a container, as the orchestrator writes it, free to be changed."""
    home = f"{NAME}.{deployment}"
    body = creation_body(
        Creation(
            spec=ContainerSpec(NAME, NAME.removeprefix("repo-"), limits, spec_labels or {}),
            image=image,
            volume=volume_of(home),
            labels=labels(home, deployment),
            birth="0" * 32,
            sockets=None if is_tcp else sockets / home,
            hosts=None if is_tcp else sockets / "hosts",
            network=f"berth-{deployment}" if is_tcp else None,
            command=command,
            engine_runtime=engine_runtime,
        )
    )
    return dict(json.loads(json.dumps(body)))


def changed(body: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """The body with another value at a place, such as `HostConfig.Mounts.1.Source`."""
    result = copy.deepcopy(dict(body))
    *way, last = path.split(".")
    inner: Any = result
    for part in way:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    if isinstance(inner, list):
        inner[int(last)] = value
    else:
        inner[last] = value
    return result
