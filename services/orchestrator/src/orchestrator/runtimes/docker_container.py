"""Docker containers as data: what we ask the engine for, and what its answers mean. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, Field

from orchestrator.domain.container import (
    Container,
    ContainerSpec,
    ContainerState,
    Endpoint,
    Reuse,
)
from orchestrator.domain.workspace import owner_of
from orchestrator.runtimes.socket_directory import SOCKET_NAME

RUNTIME = "docker"
WORKER_UID = 10001  # as in Dockerfile.agent
WORKER_PORT = "8000/tcp"
LOOPBACK = "127.0.0.1"
WORKSPACE_INSIDE = "/workspace"
SOCKETS_INSIDE = "/run/berth"
HOME_INSIDE = "/home/berth"
RUN_BYTES = 16 * 2**20

DEPLOYMENT_LABEL = "berth.deployment"
WORKSPACE_LABEL = "berth.workspace"
FINGERPRINT_LABEL = "berth.fingerprint"
VERSION_LABEL = "berth.version"
BIRTH_LABEL = "berth.birth"
HOME_LABEL = "berth.home"
PLACE_LABEL = "berth.place"

_STATES = {
    "created": ContainerState.STOPPED,
    "exited": ContainerState.STOPPED,
    "paused": ContainerState.PAUSED,
    "running": ContainerState.RUNNING,
}


@dataclass(frozen=True, slots=True)
class Creation:
    """All that a container is created from.

    Exactly one of `sockets` and `network` is set: the directory for the worker's socket, or the
    network on which its port is published.

    Args:
        birth: A value that tells the volumes this creation made from older ones.
        hosts: File to be seen as /etc/hosts where there is no network; Docker leaves that empty.
        command: What runs instead of the image's entry point.
        engine_runtime: The engine's runtime that runs it; None for the engine's default.
    """

    spec: ContainerSpec
    image: str
    volume: str
    labels: Mapping[str, str]
    birth: str
    sockets: Path | None = None
    hosts: Path | None = None
    network: str | None = None
    command: Sequence[str] | None = None
    engine_runtime: str | None = None


def creation_body(creation: Creation) -> dict[str, object]:
    """The request body that creates the container."""
    body: dict[str, object] = {
        "Image": creation.image,
        "Hostname": creation.spec.name,
        "User": f"{WORKER_UID}:{WORKER_UID}",
        "Labels": {**creation.spec.labels, **creation.labels},
        "Env": _environment(creation),
        "HostConfig": _host_config(creation),
    }
    if creation.command is not None:
        body |= {"Entrypoint": list(creation.command), "Cmd": []}
    if creation.network is None:
        # Half the start time of the network mode "none", which makes an interface and removes it.
        body["NetworkDisabled"] = True
    else:
        body["ExposedPorts"] = {WORKER_PORT: {}}
    return body


def _environment(creation: Creation) -> list[str]:
    listen = (
        f"BERTH_WORKER_SOCKET={SOCKETS_INSIDE}/{SOCKET_NAME}"
        if creation.network is None
        else f"BERTH_WORKER_PORT={WORKER_PORT.partition('/')[0]}"
    )
    return [f"BERTH_WORKSPACE={WORKSPACE_INSIDE}", listen]


def _host_config(creation: Creation) -> dict[str, object]:
    limits = creation.spec.limits
    config: dict[str, object] = {
        # The image's entry point is its own init: one of the engine would share the tools' user and
        # be under the engine's filter for system calls only.
        "Init": creation.command is not None,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,
        "NanoCpus": round(limits.cpus * 10**9),
        "PidsLimit": limits.pids,
        "Ulimits": [
            # A start fails if this is above the engine's own hard limit.
            _ulimit("nofile", limits.open_files),
            _ulimit("fsize", limits.largest_file_bytes),
            _ulimit("core", 0),
        ],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "2m", "max-file": "2"}},
        "RestartPolicy": {"Name": "no"},
        "Tmpfs": _tmpfs(limits.temporary_bytes),
        "Mounts": _mounts(creation),
    }
    if creation.engine_runtime is not None:
        config["Runtime"] = creation.engine_runtime
    if creation.network is not None:
        config["NetworkMode"] = creation.network
        config["PortBindings"] = {WORKER_PORT: [{"HostIp": LOOPBACK, "HostPort": ""}]}
    return config


def _ulimit(name: str, value: int) -> dict[str, object]:
    return {"Name": name, "Soft": value, "Hard": value}


def _tmpfs(size: int) -> dict[str, str]:
    # Docker's default forbids execution, but builds and tests run what they put there.
    owner = f"uid={WORKER_UID},gid={WORKER_UID}"
    return {
        "/tmp": f"rw,exec,nosuid,nodev,size={size},mode=1777",  # noqa: S108 - inside the container
        "/run": f"rw,noexec,nosuid,nodev,size={RUN_BYTES},mode=0755",
        HOME_INSIDE: f"rw,exec,nosuid,nodev,size={size},mode=0700,{owner}",
    }


def _mounts(creation: Creation) -> list[dict[str, object]]:
    mounts: list[dict[str, object]] = [
        {
            "Type": "volume",
            "Source": creation.volume,
            "Target": WORKSPACE_INSIDE,
            # Labels are given only to a volume that this request makes.
            "VolumeOptions": {"Labels": {**creation.labels, BIRTH_LABEL: creation.birth}},
        }
    ]
    if creation.sockets is not None:
        source = str(creation.sockets)
        mounts.append({"Type": "bind", "Source": source, "Target": SOCKETS_INSIDE})
    if creation.hosts is not None:
        source = str(creation.hosts)
        mounts.append({"Type": "bind", "Source": source, "Target": "/etc/hosts", "ReadOnly": True})
    return mounts


class _State(BaseModel):
    status: str = Field(alias="Status")


class _Config(BaseModel):
    labels: dict[str, str] | None = Field(alias="Labels")


class _Binding(BaseModel):
    port: str = Field(alias="HostPort")


class _Network(BaseModel):
    ports: dict[str, list[_Binding] | None] | None = Field(default=None, alias="Ports")


class Inspected(BaseModel):
    """The part we use of the engine's answer about one container."""

    name: str = Field(alias="Name")
    state: _State = Field(alias="State")
    created: datetime = Field(alias="Created")
    config: _Config = Field(alias="Config")
    network: _Network = Field(alias="NetworkSettings")

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.config.labels or {}

    @property
    def home(self) -> str:
        """The name on the engine that it was made under."""
        return self.labels.get(HOME_LABEL) or self.name.removeprefix("/")

    @property
    def has_ended(self) -> bool:
        """True if it ran and does no more."""
        return self.state.status in {"exited", "dead"}

    def container(self, name: str, socket: Endpoint | None) -> Container:
        """The container; `socket` is its endpoint unless it is reached by a port."""
        bindings = (self.network.ports or {}).get(WORKER_PORT) or []
        port = int(bindings[0].port) if bindings else None
        return _container(
            name,
            status=self.state.status,
            labels=self.labels,
            created=self.created.replace(microsecond=0),  # as exact as in the list
            socket=socket,
            port=port,
        )


class _PublishedPort(BaseModel):
    private: int = Field(alias="PrivatePort")
    public: int | None = Field(default=None, alias="PublicPort")


class Listed(BaseModel):
    """The part we use of one entry of the engine's list of containers."""

    names: list[str] = Field(alias="Names")
    state: str = Field(alias="State")
    created: datetime = Field(alias="Created")
    labels: dict[str, str] = Field(alias="Labels")
    ports: list[_PublishedPort] = Field(default_factory=list, alias="Ports")

    @property
    def engine_name(self) -> str:
        """Its name on the engine."""
        return self.names[0].removeprefix("/")

    @property
    def home(self) -> str:
        """The name on the engine that it was made under."""
        return self.labels.get(HOME_LABEL) or self.engine_name

    def container(self, name: str, socket: Endpoint | None) -> Container:
        """The container; `socket` is its endpoint unless it is reached by a port."""
        port = next((p.public for p in self.ports if p.public is not None), None)
        return _container(
            name,
            status=self.state,
            labels=self.labels,
            created=self.created,
            socket=socket,
            port=port,
        )


def _container(
    name: str,
    *,
    status: str,
    labels: Mapping[str, str],
    created: datetime,
    socket: Endpoint | None,
    port: int | None,
) -> Container:
    return Container(
        name=name,
        # Labels cannot change: what comes from the pool is told by its name.
        workspace_id=labels.get(WORKSPACE_LABEL) or owner_of(name),
        runtime=RUNTIME,
        state=_STATES.get(status, ContainerState.BROKEN),
        endpoint=socket or Endpoint(uds=None, url=f"http://{LOOPBACK}:{port or 0}"),
        created_at=created,
        fingerprint=labels.get(FINGERPRINT_LABEL, ""),
        how=Reuse.REUSE,
    )


class EngineFacts(BaseModel):
    """What an engine says about the limits it can enforce."""

    memory: bool = Field(default=False, alias="MemoryLimit")
    swap: bool = Field(default=False, alias="SwapLimit")
    cpus: bool = Field(default=False, alias="CpuCfsQuota")
    pids: bool = Field(default=False, alias="PidsLimit")
    security: list[str] = Field(default_factory=list, alias="SecurityOptions")
    root: str = Field(default="", alias="DockerRootDir")

    def limits(self) -> dict[str, bool]:
        """Each limit and whether it is enforced."""
        return {
            "memory": self.memory,
            "swap": self.swap,
            "cpu": self.cpus,
            "pids": self.pids,
            "seccomp": any("seccomp" in option for option in self.security),
        }
