"""What a taken-over orchestrator would try through the proxy before a real engine."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest
from docker.errors import APIError
from docker.types import Mount
from tests.support.engine_calls import changed
from tests.support.engine_proxy import running_proxy
from tests.support.engine_scene import Scene, scene, tell
from tests.support.runtimes import IMAGE, problem_with, require

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def there() -> Iterator[Scene]:
    require(asyncio.run(problem_with("docker")))
    with scene() as made:
        yield made


CREATIONS = [
    ("HostConfig.Privileged", True),
    ("hostconfig", {"Privileged": True}),
    ("HostConfig.Binds", ["/:/host"]),
    ("HostConfig.Mounts.1.Source", "/"),
    ("HostConfig.Mounts.1.Source", "/var/run/docker.sock"),
    ("HostConfig.Mounts.0.Source", "berth-stranger"),
    ("HostConfig.Mounts.0.VolumeOptions.DriverConfig", {"Options": {"device": "/"}}),
    ("HostConfig.PidMode", "host"),
    ("HostConfig.IpcMode", "host"),
    ("HostConfig.NetworkMode", "host"),
    ("HostConfig.UsernsMode", "host"),
    ("HostConfig.CapAdd", ["ALL"]),
    ("HostConfig.Devices", [{"PathOnHost": "/dev/mem"}]),
    ("HostConfig.SecurityOpt", ["seccomp=unconfined"]),
    ("HostConfig.VolumesFrom", ["STRANGER"]),
    ("HostConfig.Runtime", "runc"),
    ("HostConfig.CgroupParent", "/"),
    ("HostConfig.NotYetInvented", True),
    ("User", "0"),
    ("Image", "sha256:" + "0" * 64),
    ("NetworkDisabled", False),
]


@pytest.mark.parametrize(("path", "value"), CREATIONS)
def test_no_other_container_is_made(there: Scene, path: str, value: object) -> None:
    name = f"pool-1.{there.deployment}"
    body = changed({**there.creation(), "Hostname": "pool-1"}, path, value)
    before = len(there.proxy.refusals())
    said = there.ask("POST", "/containers/create", {"name": name}, body)
    assert said.status == 403
    assert there.proxy.refusals()[before:] == [said.message]
    assert not there.has(name)


def test_the_same_without_the_change_is_made(there: Scene) -> None:
    name = f"pool-1.{there.deployment}"
    body = {**there.creation(), "Hostname": "pool-1"}
    assert there.ask("POST", "/containers/create", {"name": name}, body).status == 201
    assert there.ask("DELETE", f"/containers/{name}").status == 204
    assert not there.has(name)


CALLS = [
    ("POST", "/containers/{ours}/exec", {"Cmd": ["sh"]}),
    ("POST", "/containers/{ours}/attach", None),
    ("GET", "/containers/{ours}/archive", None),
    ("PUT", "/containers/{ours}/archive", None),
    ("GET", "/containers/{ours}/export", None),
    ("POST", "/containers/{ours}/update", {"Memory": 0}),
    ("GET", "/containers/{ours}/logs/../../{stranger}/json", None),
    ("GET", "/containers/%2e%2e/info", None),
    ("POST", "/containers/{stranger}/start", None),
    ("POST", "/containers/{stranger}/stop", None),
    ("POST", "/containers/{stranger}/pause", None),
    ("POST", "/containers/{stranger}/rename?name={ours}", None),
    ("DELETE", "/containers/{stranger}?force=1", None),
    ("GET", "/containers/{stranger}/logs?stdout=1", None),
    ("DELETE", "/containers/{stranger_id}?force=1", None),
    ("DELETE", "/containers/{stranger_prefix}?force=1", None),
    ("GET", "/containers/json?all=1", None),
    ("POST", "/containers/prune", None),
    ("POST", "/build?remote=x", None),
    ("POST", "/commit?container={ours}", None),
    ("POST", "/images/create?fromImage=x", None),
    ("DELETE", "/images/{image}?force=1", None),
    ("POST", "/images/{image}/tag?repo=x", None),
    ("DELETE", "/volumes/berth-stranger", None),
    ("POST", "/volumes/create", {"Name": "x", "DriverOpts": {"device": "/", "o": "bind"}}),
    ("GET", "/volumes", None),
    ("POST", "/networks/create", {"Name": "x"}),
    ("POST", "/networks/bridge/connect", {"Container": "{ours}"}),
    ("POST", "/swarm/init", {}),
    ("GET", "/plugins", None),
    ("POST", "/plugins/pull?remote=x", None),
    ("GET", "/events", None),
    ("GET", "/secrets", None),
    ("GET", "/_ping", None),
    ("GET", "/system/df", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_no_other_call_is_made(there: Scene, method: str, path: str, body: object) -> None:
    stranger_id = str(there.engine.containers.get(there.stranger).id)
    before = len(there.proxy.refusals())
    target = path.format(
        ours=there.ours,
        stranger=there.stranger,
        stranger_id=stranger_id,
        stranger_prefix=stranger_id[:12],
        image=IMAGE,
    )
    said = there.ask(method, target, body=body)
    assert said.status == 403
    assert there.proxy.refusals()[before:] == [said.message]
    assert there.has(there.stranger)
    assert there.engine.containers.get(there.stranger).status == "created"


def test_a_strangers_container_is_not_there_to_be_looked_at(there: Scene) -> None:
    before = len(there.proxy.refusals())
    said = there.ask("GET", f"/containers/{there.stranger}/json")
    assert said.status == 404
    assert said.message.endswith(f"is not of the deployment {there.deployment}.")
    assert len(there.proxy.refusals()) == before + 1
    # One that does not exist is what the orchestrator asks about all the time.
    assert there.ask("GET", f"/containers/repo-none.{there.deployment}/json").status == 404
    assert len(there.proxy.refusals()) == before + 1


def test_a_strangers_volume_is_neither_used_nor_removed(there: Scene) -> None:
    home = f"pool-2.{there.deployment}"
    volume = f"berth-{home}"
    there.engine.volumes.create(volume, labels={"berth.deployment": "other"})
    body = there.creation()
    body["Hostname"] = "pool-2"
    body["Labels"]["berth.home"] = home
    body["HostConfig"]["Mounts"][0]["Source"] = volume
    body["HostConfig"]["Mounts"][0]["VolumeOptions"]["Labels"]["berth.home"] = home
    body["HostConfig"]["Mounts"][1]["Source"] = str(there.sockets / home)
    (there.sockets / home).mkdir()
    labels = {"berth.deployment": there.deployment, "berth.place": "0" * 12, "berth.home": home}
    for said in (
        there.ask("POST", "/containers/create", {"name": home}, body),
        there.ask("DELETE", f"/volumes/{volume}"),
        there.ask("POST", "/volumes/create", body={"Name": volume, "Labels": labels}),
    ):
        assert said.status == 403
        assert said.message.startswith(f"The volume {volume} is not of the deployment")
    assert there.ask("GET", f"/volumes/{volume}").status == 404
    assert there.engine.volumes.get(volume).name == volume


def test_links_are_not_mounted(there: Scene) -> None:
    home = f"pool-3.{there.deployment}"
    body = there.creation()
    body["Hostname"] = "pool-3"
    body["Labels"]["berth.home"] = home
    body["HostConfig"]["Mounts"][0]["Source"] = f"berth-{home}"
    body["HostConfig"]["Mounts"][0]["VolumeOptions"]["Labels"]["berth.home"] = home
    body["HostConfig"]["Mounts"][1]["Source"] = str(there.sockets / home)
    link = there.sockets / home
    link.symlink_to("/")
    said = there.ask("POST", "/containers/create", {"name": home}, body)
    assert (said.status, "symbolic link" in said.message) == (403, True)

    link.unlink()
    link.mkdir()
    assert there.ask("POST", "/containers/create", {"name": home}, body).status == 201
    link.rmdir()
    link.symlink_to("/")
    said = there.ask("POST", f"/containers/{home}/start")
    assert (said.status, "symbolic link" in said.message) == (403, True)
    assert there.engine.containers.get(home).status == "created"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_mount_that_follows_no_links_closes_the_gap_between_look_and_use(
    passable_directory: Path,
) -> None:
    """The engine itself is asked here, as if the proxy had looked a moment before the swap."""
    require(asyncio.run(problem_with("docker")))
    sockets = passable_directory / "run"
    sockets.mkdir()
    command = ("mount", "-o", "bind,nosymfollow", str(sockets), str(sockets))
    subprocess.run(command, check=True, capture_output=True)
    engine = docker.from_env()
    try:
        (sockets / "x").mkdir()
        mount = Mount("/run/berth", str(sockets / "x"), type="bind")
        container = engine.containers.create(IMAGE, mounts=[mount])
        try:
            (sockets / "x").rmdir()
            (sockets / "x").symlink_to("/")
            with pytest.raises(APIError):
                container.start()
        finally:
            container.remove(force=True)
        with running_proxy(passable_directory, "x") as proxy:
            assert proxy.log() == []
    finally:
        engine.close()
        subprocess.run(("umount", str(sockets)), check=True)
    with running_proxy(passable_directory, "x") as proxy:
        assert [each["event"] for each in proxy.log()] == ["engine_proxy_follows_links"]


def test_an_image_of_our_name_that_has_changed_is_another_image(there: Scene) -> None:
    other = next(str(each.id) for each in there.engine.images.list() if str(each.id) != there.image)
    said = there.create({**there.creation(), "Image": other})
    assert (said.status, "is none of" in said.message) == (403, True)


HEAD = "Host: docker\r\n"


def posted(there: Scene, body: bytes, headers: str) -> bytes:
    target = f"/v1.41/containers/create?name=pool-4.{there.deployment}"
    return f"POST {target} HTTP/1.1\r\n{HEAD}{headers}\r\n".encode() + body


def test_odd_bodies_are_refused(there: Scene) -> None:
    name = f"pool-4.{there.deployment}"
    text = json.dumps({**there.creation(), "Hostname": "pool-4"})
    twice = text[:-1] + ', "HostConfig": {"Privileged": true}}'
    privileged = json.dumps(changed(there.creation(), "HostConfig.Privileged", True)).encode()
    chunked = f"{len(privileged):x}\r\n".encode() + privileged + b"\r\n0\r\n\r\n"
    both = f"Transfer-Encoding: chunked\r\nContent-Length: {len(text)}\r\n"
    for body, headers, status in (
        (twice.encode(), f"Content-Length: {len(twice)}\r\n", 400),
        (chunked, "Transfer-Encoding: chunked\r\n", 403),
        (chunked, both, 403),
        (text.encode(), f"Content-Length: {len(text)}\r\nContent-Length: 3\r\n", 400),
        (text.encode(), "", 400),
        (b"[" * 200_000, "Content-Length: 200000\r\n", 400),
    ):
        assert tell(there.proxy.socket, posted(there, body, headers)).status == status
        assert not there.has(name)


def test_what_is_too_large_is_refused_without_reading_it_all(there: Scene) -> None:
    body = json.dumps({**there.creation(), "Hostname": "pool-4"}).encode() + b" " * 2_000_000
    head = f"GET /version HTTP/1.1\r\n{HEAD}X: {'x' * 2_000_000}\r\n\r\n".encode()
    large = posted(there, body, f"Content-Length: {len(body)}\r\n")
    for request, reason in ((large, "The body is larger than"), (head, "not an HTTP request")):
        before = len(there.proxy.refusals())
        # Who still sends when the answer comes may see the connection end instead.
        with suppress(ConnectionError):
            assert tell(there.proxy.socket, request).status == 400
        (said,) = there.proxy.refusals()[before:]
        assert reason in said
    assert not there.has(f"pool-4.{there.deployment}")


def test_upgrades_and_strange_targets_are_refused(there: Scene) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
    for line, headers, status in (
        ("GET /v1.41/version HTTP/1.1", upgrade, 403),
        ("GET /v1.41/version HTTP/1.1", "Expect: 100-continue\r\n", 403),
        ("GET http://docker/v1.41/version HTTP/1.1", "", 403),
        ("GET //v1.41/version HTTP/1.1", "", 403),
        ("CONNECT docker:80 HTTP/1.1", "", 403),
        ("OPTIONS * HTTP/1.1", "", 403),
        ("GET /v1.24/version HTTP/1.1", "", 403),
        ("GET /version\x00 HTTP/1.1", "", 400),
        ("GET /version HTTP/9", "", 400),
        ("hello", "", 400),
    ):
        request = f"{line}\r\n{HEAD}{headers}\r\n".encode()
        assert tell(there.proxy.socket, request).status == status, line


def test_a_second_request_on_a_connection_is_not_read(there: Scene) -> None:
    first = f"GET /v1.41/version HTTP/1.1\r\n{HEAD}\r\n"
    second = f"DELETE /v1.41/containers/{there.ours}?force=1 HTTP/1.1\r\n{HEAD}\r\n"
    assert tell(there.proxy.socket, (first + second).encode()).status == 200
    assert there.has(there.ours)
    assert there.proxy.process.poll() is None


def test_it_ends_when_told_and_takes_its_socket_along(passable_directory: Path) -> None:
    with running_proxy(passable_directory, "x") as proxy:
        socket = proxy.socket
        assert socket.is_socket()
        assert socket.stat().st_mode & 0o777 == 0o600
        assert proxy.stop() == 0
        assert not socket.exists()
