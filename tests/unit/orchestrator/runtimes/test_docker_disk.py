"""What the engine is asked for in order to measure a volume."""

from pathlib import Path
from typing import Any

from orchestrator.runtimes.docker_disk import measuring_body


def body(sockets: Path | None = None) -> Any:
    return measuring_body("sha256:1", "berth-x", sockets, {"berth.measures": "d"})


def test_it_may_read_every_directory_and_nothing_else() -> None:
    asked, host = body(), body()["HostConfig"]
    assert asked["NetworkDisabled"] is True
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["DAC_READ_SEARCH"])
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] is True
    assert not {"PidMode", "Privileged", "NetworkMode", "IpcMode"} & set(host)


def test_nothing_is_mounted_but_what_is_measured_and_that_read_only() -> None:
    (volume,) = body()["HostConfig"]["Mounts"]
    assert (volume["Source"], volume["ReadOnly"]) == ("berth-x", True)
    assert volume["VolumeOptions"] == {"NoCopy": True}
    mounts = body(Path("/s"))["HostConfig"]["Mounts"]
    assert [mount["ReadOnly"] for mount in mounts] == [True, True]
    assert body(Path("/s"))["Entrypoint"][-2:] == [mount["Target"] for mount in mounts]


def test_it_is_not_taken_for_a_workspace_container() -> None:
    assert "berth.deployment" not in body()["Labels"]
