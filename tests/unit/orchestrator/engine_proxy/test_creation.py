"""Bodies that create containers: ours go through, and nothing else."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.engine_calls import (
    IMAGE_ID,
    LIMITS,
    QUALIFIED,
    SOCKETS,
    TCP_TERMS,
    TERMS,
    changed,
    creation,
)

from orchestrator.domain.container import Limits
from orchestrator.engine_proxy.body import first_difference
from orchestrator.engine_proxy.creation import judge_creation
from orchestrator.engine_proxy.order import KnownImage, OwnNetwork, OwnVolume, PlainPath
from orchestrator.errors import EngineCallRefused


def limits() -> st.SearchStrategy[Limits]:
    return st.builds(
        Limits,
        memory_bytes=st.integers(1, 2**45),
        cpus=st.floats(0.01, 1024),
        pids=st.integers(1, 2**22),
        open_files=st.integers(1, 2**30),
        file_bytes=st.integers(1, 2**50),
    )


@given(
    limits(),
    st.booleans(),
    st.none() | st.lists(st.text(max_size=5), max_size=3).map(tuple),
    st.dictionaries(st.from_regex(r"\Aberth\.[a-z]{5}\Z"), st.from_regex(r"\A[a-z0-9.]{0,9}\Z")),
)
def test_what_the_orchestrator_writes_goes_through_as_it_is(
    limits: Limits, is_tcp: bool, command: tuple[str, ...] | None, spec_labels: dict[str, str]
) -> None:
    body = creation(limits=limits, is_tcp=is_tcp, command=command, spec_labels=spec_labels)
    sent, _ = judge_creation(QUALIFIED, body, TCP_TERMS if is_tcp else TERMS)
    assert sent == body


def test_what_must_hold_for_a_container_without_a_network() -> None:
    _, conditions = judge_creation(QUALIFIED, creation(), TERMS)
    assert conditions == (
        KnownImage(IMAGE_ID),
        OwnVolume(f"berth-{QUALIFIED}", may_be_missing=True),
        PlainPath(SOCKETS / QUALIFIED, is_directory=True),
        PlainPath(SOCKETS / "hosts", is_directory=False),
    )


def test_what_must_hold_for_a_container_with_a_network() -> None:
    _, conditions = judge_creation(QUALIFIED, creation(is_tcp=True), TCP_TERMS)
    assert conditions[2:] == (OwnNetwork("berth-mine"),)


ATTEMPTS = [
    ("HostConfig.Privileged", True, "'HostConfig.Privileged' is never asked for"),
    ("HostConfig.Privileged", False, "never asked for"),
    ("HostConfig.privileged", True, "never asked for"),
    ("hostconfig", {"Privileged": True}, "'hostconfig' is never asked for"),
    ("HostConfig.PidMode", "host", "never asked for"),
    ("HostConfig.IpcMode", "host", "never asked for"),
    ("HostConfig.UTSMode", "host", "never asked for"),
    ("HostConfig.UsernsMode", "host", "never asked for"),
    ("HostConfig.CgroupnsMode", "host", "never asked for"),
    ("HostConfig.CgroupParent", "/", "never asked for"),
    ("HostConfig.NetworkMode", "host", "never asked for"),
    ("HostConfig.NetworkMode", "container:other", "never asked for"),
    ("HostConfig.CapAdd", ["SYS_ADMIN"], "never asked for"),
    ("HostConfig.CapDrop", [], "HostConfig.CapDrop is"),
    ("HostConfig.Devices", [{"PathOnHost": "/dev/sda"}], "never asked for"),
    ("HostConfig.DeviceRequests", [], "never asked for"),
    ("HostConfig.DeviceCgroupRules", ["a *:* rwm"], "never asked for"),
    ("HostConfig.Binds", ["/:/host"], "never asked for"),
    ("HostConfig.VolumesFrom", ["other"], "never asked for"),
    ("HostConfig.VolumeDriver", "nfs", "never asked for"),
    ("HostConfig.Links", ["other"], "never asked for"),
    ("HostConfig.GroupAdd", ["0"], "never asked for"),
    ("HostConfig.Sysctls", {"kernel.core_pattern": "|/x"}, "never asked for"),
    ("HostConfig.MaskedPaths", [], "never asked for"),
    ("HostConfig.ReadonlyPaths", [], "never asked for"),
    ("HostConfig.OomScoreAdj", -1000, "never asked for"),
    ("HostConfig.AutoRemove", True, "never asked for"),
    ("HostConfig.PublishAllPorts", True, "never asked for"),
    ("HostConfig.PortBindings", {"8000/tcp": [{"HostPort": "22"}]}, "never asked for"),
    ("HostConfig.SecurityOpt", ["seccomp=unconfined"], "HostConfig.SecurityOpt"),
    ("HostConfig.SecurityOpt", ["no-new-privileges", "apparmor=unconfined"], "SecurityOpt"),
    ("HostConfig.ReadonlyRootfs", False, "HostConfig.ReadonlyRootfs"),
    ("HostConfig.ReadonlyRootfs", 1, "HostConfig.ReadonlyRootfs"),
    ("HostConfig.Runtime", "evil", "HostConfig.Runtime"),
    ("HostConfig.Memory", 0, "HostConfig.Memory"),
    ("HostConfig.Memory", -1, "HostConfig.Memory"),
    ("HostConfig.Memory", 1.5, "HostConfig.Memory"),
    ("HostConfig.MemorySwap", -1, "HostConfig.MemorySwap"),
    ("HostConfig.NanoCpus", 0, "HostConfig.NanoCpus"),
    ("HostConfig.NanoCpus", 10**40, "HostConfig.NanoCpus"),
    ("HostConfig.PidsLimit", -1, "HostConfig.PidsLimit"),
    ("HostConfig.PidsLimit", True, "HostConfig.PidsLimit"),
    ("HostConfig.Ulimits", [], "HostConfig.Ulimits"),
    ("HostConfig.Ulimits.1", {"Name": "fsize", "Soft": -1, "Hard": -1}, "Ulimits"),
    ("HostConfig.Ulimits.2.Hard", -1, "Ulimits"),
    ("HostConfig.LogConfig.Type", "syslog", "HostConfig.LogConfig.Type"),
    ("HostConfig.RestartPolicy.Name", "always", "HostConfig.RestartPolicy.Name"),
    ("HostConfig.Tmpfs", {"/tmp": "suid,dev"}, "Tmpfs"),
    ("HostConfig.Mounts.0.Source", "/", "Mounts"),
    ("HostConfig.Mounts.0.Source", "berth-other", "Mounts"),
    ("HostConfig.Mounts.0.Type", "bind", "Mounts"),
    ("HostConfig.Mounts.0.VolumeOptions.DriverConfig", {"Name": "local"}, "never asked for"),
    ("HostConfig.Mounts.0.VolumeOptions.Subpath", "..", "never asked for"),
    ("HostConfig.Mounts.1.Source", "/", "Mounts"),
    ("HostConfig.Mounts.1.Source", "/var/run/docker.sock", "Mounts"),
    ("HostConfig.Mounts.1.Source", f"{SOCKETS}", "Mounts"),
    ("HostConfig.Mounts.1.Source", f"{SOCKETS}/..", "Mounts"),
    ("HostConfig.Mounts.1.Source", f"{SOCKETS}/repo-other.mine", "Mounts"),
    ("HostConfig.Mounts.1.BindOptions", {"Propagation": "rshared"}, "never asked for"),
    ("HostConfig.Mounts.2.ReadOnly", False, "Mounts"),
    ("HostConfig.Mounts.2.Target", "/etc/passwd", "Mounts"),
    ("HostConfig.Mounts", [], "Mounts"),
    ("HostConfig.Unknown2031", 1, "never asked for"),
    ("NetworkDisabled", False, "NetworkDisabled"),
    ("NetworkingConfig", {"EndpointsConfig": {"other": {}}}, "never asked for"),
    ("User", "0:0", "User"),
    ("Image", "alpine", "Image"),
    ("Image", "berth-agent:1", "Image"),
    ("Volumes", {"/x": {}}, "never asked for"),
    ("ExposedPorts", {"22/tcp": {}}, "never asked for"),
    ("Healthcheck", {"Test": ["CMD", "x"]}, "never asked for"),
    ("Hostname", "other", "Hostname"),
    ("WorkingDir", "/", "never asked for"),
    ("Env", ["LD_PRELOAD=/x"], "Env"),
    ("Cmd", ["x"], "never asked for"),
    ("Entrypoint", "sh", "Entrypoint"),
    ("Labels", {}, "berth.deployment=mine is missing"),
    ("HostConfig", None, "HostConfig"),
]


@pytest.mark.parametrize(("path", "value", "said"), ATTEMPTS)
def test_what_it_never_writes_is_refused(path: str, value: object, said: str) -> None:
    with pytest.raises(EngineCallRefused) as caught:
        judge_creation(QUALIFIED, changed(creation(), path, value), TERMS)
    assert said in caught.value.detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("traefik.enable", "true"),
        ("com.docker.compose.project", "other"),
        ("berth.deployment", "other"),
        ("berth.home", "repo-1.other"),
        ("berth.home", "../../etc"),
        ("berth.home", "hosts"),
        ("berth.x", "a\nb"),
    ],
)
def test_labels_are_of_our_forms(name: str, value: str) -> None:
    body = creation()
    body["Labels"][name] = value
    with pytest.raises(EngineCallRefused):
        judge_creation(QUALIFIED, body, TERMS)


@pytest.mark.parametrize(
    "name",
    ["", "repo-1", "repo-1.other", "postgres", "postgres.mine", "repo-.mine", "repo-1.mine.mine"],
)
def test_names_are_the_deployments(name: str) -> None:
    with pytest.raises(EngineCallRefused, match="is not the name of a container of mine"):
        judge_creation(name, creation(), TERMS)


def test_the_network_is_the_one_of_the_transport() -> None:
    with pytest.raises(EngineCallRefused):
        judge_creation(QUALIFIED, creation(is_tcp=True), TERMS)
    with pytest.raises(EngineCallRefused):
        judge_creation(QUALIFIED, creation(), TCP_TERMS)
    for mode in ("host", "bridge", "container:x", "berth-other"):
        body = changed(creation(is_tcp=True), "HostConfig.NetworkMode", mode)
        with pytest.raises(EngineCallRefused, match="NetworkMode"):
            judge_creation(QUALIFIED, body, TCP_TERMS)
    body = creation(is_tcp=True)
    body["HostConfig"]["PortBindings"]["8000/tcp"][0]["HostIp"] = "0.0.0.0"
    with pytest.raises(EngineCallRefused, match="HostIp"):
        judge_creation(QUALIFIED, body, TCP_TERMS)


def test_a_named_engine_runtime_must_be_used() -> None:
    terms = dataclasses.replace(TERMS, engine_runtimes=frozenset({"runsc"}))
    body = creation(engine_runtime="runsc")
    assert judge_creation(QUALIFIED, body, terms)[0] == body
    for other in (creation(), creation(engine_runtime="runc")):
        with pytest.raises(EngineCallRefused, match="must be runsc"):
            judge_creation(QUALIFIED, other, terms)


def places(value: Any, path: str = "") -> Iterator[str]:
    """Every object and leaf of a body."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in inner:
        here = f"{path}.{name}".removeprefix(".")
        if "." not in str(name) and "/" not in str(name):
            yield here
            if isinstance(each, dict | list):
                yield from places(each, here)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2)
    ),
    max_leaves=4,
)
VARY = {
    "Image": "KnownImage judges it",
    "Entrypoint": "any program may run inside",
    "HostConfig.Memory": "with what follows from it",
    "HostConfig.NanoCpus": "a limit",
    "HostConfig.PidsLimit": "a limit",
    "HostConfig.Init": "what follows from a command",
}


@given(st.sampled_from(sorted(places(creation()))), VALUES)
def test_any_change_is_refused_unless_it_is_a_value_that_varies(path: str, value: object) -> None:
    body = changed(creation(), path, value)
    try:
        sent, _ = judge_creation(QUALIFIED, body, TERMS)
    except EngineCallRefused:
        return
    assert first_difference(sent, body) is None
    assert body == creation() or path in VARY


@given(st.sampled_from(["", "HostConfig.", "HostConfig.Mounts.1."]), st.text(), VALUES)
def test_any_field_more_is_refused(where: str, name: str, value: object) -> None:
    body = creation()
    inner: Any = body
    for part in where.split(".")[:-1]:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    if name in inner or name == "Entrypoint":
        return
    inner[name] = value
    with pytest.raises(EngineCallRefused):
        judge_creation(QUALIFIED, body, TERMS)


def test_numbers_and_truth_are_not_the_same() -> None:
    assert first_difference({"a": 1}, {"a": True}) == "a is 1 and must be true"
    assert first_difference([1.0], [1]) == "[0] is 1.0 and must be 1"
    assert first_difference({"a": [1]}, {"a": [1], "b": 2}) == "b is missing"
    assert first_difference({"a": [1, 2]}, {"a": [1]}) == "a is [1, 2] and must be [1]"
    assert LIMITS.temporary_bytes == LIMITS.memory_bytes // 4
