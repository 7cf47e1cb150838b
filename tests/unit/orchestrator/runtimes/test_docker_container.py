"""What the engine is asked for, and what its answers mean."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.container import ContainerSpec, ContainerState, Endpoint, Limits
from orchestrator.runtimes.docker_container import (
    Creation,
    EngineFacts,
    Inspected,
    Listed,
    creation_body,
)

SPEC = ContainerSpec(
    "repo-0123456789abcdef", "0123456789abcdef", Limits(2**30, 1.5, 99), {"team": "a"}
)
SOCKET = Endpoint(uds=Path("/run/w/worker.sock"), url="http://worker")


def body(**changes: Any) -> Any:
    facts: dict[str, Any] = {
        "spec": SPEC,
        "image": "sha256:1",
        "volume": "berth-x",
        "labels": {"berth.deployment": "d"},
        "birth": "b",
        "sockets": Path("/s"),
        "hosts": Path("/h"),
    }
    return creation_body(Creation(**(facts | changes)))


def inspected(status: str, ports: Mapping[str, object] | None = None) -> Inspected:
    return Inspected.model_validate(
        {
            "State": {"Status": status},
            "Name": "/repo-1",
            "Created": "2026-11-21T07:46:00.123456789Z",
            "Config": {"Labels": {"berth.workspace": "w", "berth.fingerprint": "f"}},
            "NetworkSettings": {"Ports": ports},
        }
    )


def test_a_container_has_no_rights() -> None:
    host = body()["HostConfig"]
    assert body()["User"] == "10001:10001"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] is True
    assert host["RestartPolicy"] == {"Name": "no"}


def test_the_limits_are_those_of_the_specification() -> None:
    host = body()["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 2**30
    assert (host["NanoCpus"], host["PidsLimit"]) == (1_500_000_000, 99)
    assert {each["Name"]: each["Hard"] for each in host["Ulimits"]} == {
        "nofile": SPEC.limits.open_files,
        "fsize": SPEC.limits.file_bytes,
        "core": 0,
    }


def test_the_engine_chooses_its_runtime_unless_one_is_asked_for() -> None:
    assert "Runtime" not in body()["HostConfig"]
    assert body(engine_runtime="runsc")["HostConfig"]["Runtime"] == "runsc"


def test_by_socket_there_is_no_network() -> None:
    asked = body()
    assert asked["NetworkDisabled"] is True
    assert "ExposedPorts" not in asked
    assert "PortBindings" not in asked["HostConfig"]
    assert "BERTH_WORKER_SOCKET=/run/berth/worker.sock" in asked["Env"]
    mounts = {mount["Target"]: mount for mount in asked["HostConfig"]["Mounts"]}
    assert mounts["/run/berth"]["Source"] == "/s"
    assert mounts["/etc/hosts"]["ReadOnly"] is True


def test_by_port_it_is_published_on_loopback_alone() -> None:
    asked = body(sockets=None, hosts=None, network="berth-d")
    assert "NetworkDisabled" not in asked
    assert asked["HostConfig"]["NetworkMode"] == "berth-d"
    (binding,) = asked["HostConfig"]["PortBindings"]["8000/tcp"]
    assert binding["HostIp"] == "127.0.0.1"
    assert "BERTH_WORKER_PORT=8000" in asked["Env"]
    assert [mount["Target"] for mount in asked["HostConfig"]["Mounts"]] == ["/workspace"]


def test_labels_of_the_specification_cannot_replace_ours() -> None:
    spec = ContainerSpec(SPEC.name, SPEC.workspace_id, SPEC.limits, {"berth.deployment": "forged"})
    assert body(spec=spec)["Labels"]["berth.deployment"] == "d"
    assert body()["Labels"]["team"] == "a"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", ContainerState.RUNNING),
        ("paused", ContainerState.PAUSED),
        ("exited", ContainerState.STOPPED),
        ("created", ContainerState.STOPPED),
        ("dead", ContainerState.BROKEN),
        ("removing", ContainerState.BROKEN),
        ("restarting", ContainerState.BROKEN),
        ("from the future", ContainerState.BROKEN),
    ],
)
def test_states_are_mapped(status: str, state: ContainerState) -> None:
    assert inspected(status).container("repo-x", SOCKET).state is state


def test_an_inspected_container_and_a_listed_one_are_equal() -> None:
    listed = Listed.model_validate(
        {
            "Names": ["/repo-x"],
            "State": "running",
            "Created": int(datetime(2026, 11, 21, 7, 46, tzinfo=UTC).timestamp()),
            "Labels": {"berth.workspace": "w", "berth.fingerprint": "f"},
            "Ports": [{"PrivatePort": 8000, "PublicPort": 4711, "Type": "tcp"}],
        }
    )
    ports = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "4711"}]}
    found = inspected("running", ports).container("repo-x", None)
    assert listed.container("repo-x", None) == found
    assert found.endpoint == Endpoint(uds=None, url="http://127.0.0.1:4711")
    assert listed.container("repo-x", SOCKET).endpoint == SOCKET


def test_a_stopped_container_has_no_port() -> None:
    assert inspected("exited", {"8000/tcp": None}).container("x", None).endpoint.url.endswith(":0")
    assert inspected("exited", None).container("x", None).endpoint.uds is None


def test_limits_that_an_engine_does_not_mention_are_not_enforced() -> None:
    assert not any(EngineFacts.model_validate({}).limits().values())
    facts = {"MemoryLimit": True, "PidsLimit": True, "SecurityOptions": ["name=seccomp,profile=x"]}
    limits = EngineFacts.model_validate(facts).limits()
    assert {name for name, holds in limits.items() if holds} == {"memory", "pids", "seccomp"}


def test_the_image_brings_its_own_process_1() -> None:
    assert body()["HostConfig"]["Init"] is False
    assert body(command=("true",))["HostConfig"]["Init"] is True
