"""Containers that measure disks run one program on one volume."""

import json
from typing import Any

import pytest
from tests.support.engine_calls import IMAGE_ID, PLACE, QUALIFIED, SOCKETS, TERMS, changed

from orchestrator.engine_proxy.call import read_call
from orchestrator.engine_proxy.measuring import judge_measuring
from orchestrator.engine_proxy.order import KnownImage, OwnContainer, OwnVolume, PlainPath
from orchestrator.engine_proxy.policy import decide
from orchestrator.errors import EngineCallRefused
from orchestrator.runtimes.docker_disk import measuring_body

NAME = f"berth-measure-{QUALIFIED}"
VOLUME = f"berth-{QUALIFIED}"


def body(*, has_sockets: bool = True) -> dict[str, Any]:
    sockets = SOCKETS / QUALIFIED if has_sockets else None
    labels = {"berth.measures": "mine", "berth.place": PLACE}
    return dict(json.loads(json.dumps(measuring_body(IMAGE_ID, VOLUME, sockets, labels))))


@pytest.mark.parametrize("has_sockets", [True, False])
def test_what_the_orchestrator_writes_goes_through(has_sockets: bool) -> None:
    asked = body(has_sockets=has_sockets)
    sent, conditions = judge_measuring(NAME, asked, TERMS)
    assert sent == asked
    assert conditions[:2] == (KnownImage(IMAGE_ID), OwnVolume(VOLUME))
    rest = (PlainPath(SOCKETS / QUALIFIED, is_directory=True),) if has_sockets else ()
    assert conditions[2:] == rest


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Entrypoint", ["sh"]),
        ("Cmd", ["sh"]),
        ("Image", "x"),
        ("Image", IMAGE_ID + "\n"),
        ("Env", ["PYTHONPATH=/measured/workspace"]),
        ("HostConfig.CapAdd", ["SYS_ADMIN"]),
        ("HostConfig.Privileged", True),
        ("HostConfig.Mounts.0.ReadOnly", False),
        ("HostConfig.Mounts.0.Source", "berth-other"),
        ("HostConfig.Mounts.1.Source", "/"),
        ("HostConfig.Mounts.1.ReadOnly", False),
        ("HostConfig.Mounts", []),
        ("Labels", {}),
        ("Labels", {"berth.measures": "other", "berth.place": PLACE}),
        ("NetworkDisabled", False),
    ],
)
def test_what_it_never_writes_is_refused(path: str, value: object) -> None:
    with pytest.raises(EngineCallRefused):
        judge_measuring(NAME, changed(body(), path, value), TERMS)


def test_its_name_is_one_of_the_deployments() -> None:
    for name in ("berth-measure-", "berth-measure-repo-1.other", f"berth-measure-{NAME}"):
        with pytest.raises(EngineCallRefused):
            judge_measuring(name, body(), TERMS)


def test_it_can_be_started_and_listed() -> None:
    order = decide(read_call(b"POST", f"/containers/{NAME}/start".encode()), TERMS)
    assert order.conditions == (OwnContainer(NAME, is_mounted=True),)
    filters = '{"label":["berth.measures=mine"]}'
    listed = decide(read_call(b"GET", f"/containers/json?filters={filters}".encode()), TERMS)
    assert json.loads(listed.query["filters"]) == json.loads(filters)
