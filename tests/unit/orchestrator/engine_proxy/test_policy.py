"""Which calls go through, and as what."""

import dataclasses
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.engine_calls import PLACE, QUALIFIED, TCP_TERMS, TERMS, creation

from orchestrator.engine_proxy.call import read_call
from orchestrator.engine_proxy.order import Order, OwnContainer, OwnNetwork, OwnVolume
from orchestrator.engine_proxy.policy import decide
from orchestrator.engine_proxy.terms import Terms
from orchestrator.errors import EngineCallInvalid, EngineCallRefused, EngineError

VOLUME = f"berth-{QUALIFIED}"
OURS = {"label": ["berth.deployment=mine"]}


def ask(
    method: str,
    path: str,
    query: dict[str, str] | None = None,
    body: object = None,
    terms: Terms = TERMS,
) -> Order:
    target = f"/v1.41{path}" + (f"?{urlencode(query)}" if query else "")
    text = b"" if body is None else json.dumps(body).encode()
    return decide(read_call(method.encode(), target.encode(), text), terms)


def test_an_image_may_be_named_by_its_digest() -> None:
    name = "registry.example:5000/team/agent@sha256:" + "0" * 64
    terms = dataclasses.replace(TERMS, images=(name,))
    for spelt in (name, name.replace("@", "%40")):
        assert ask("GET", f"/images/{spelt}/json", terms=terms).path == f"/images/{name}/json"


def test_facts_go_through() -> None:
    assert ask("GET", "/version") == Order("GET", "/version", {})
    assert ask("GET", "/info") == Order("GET", "/info", {})
    assert ask("GET", "/images/berth-agent:1/json").path == "/images/berth-agent:1/json"


@pytest.mark.parametrize(
    ("method", "action", "query", "condition"),
    [
        ("GET", "/json", {}, OwnContainer(QUALIFIED, hides=True)),
        ("GET", "/logs", {"stdout": "1", "stderr": "1", "tail": "9", "follow": "0"}, None),
        ("POST", "/start", {}, OwnContainer(QUALIFIED, is_mounted=True)),
        ("POST", "/stop", {"t": "2"}, None),
        ("POST", "/pause", {}, None),
        ("POST", "/unpause", {}, None),
        ("POST", "/rename", {"name": "repo-1.mine"}, None),
        ("DELETE", "", {"v": "False", "link": "False", "force": "True"}, None),
    ],
)
def test_calls_on_containers_go_on_with_the_id(
    method: str, action: str, query: dict[str, str], condition: OwnContainer | None
) -> None:
    order = ask(method, f"/containers/{QUALIFIED}{action}", query)
    assert order.path == "/containers/{id}" + action
    assert order.query == query
    assert order.conditions == (condition or OwnContainer(QUALIFIED),)


def test_lists_have_our_filter() -> None:
    order = ask("GET", "/containers/json", {"all": "1", "filters": json.dumps(OURS)})
    assert order.query == {"all": "1", "filters": '{"label": ["berth.deployment=mine"]}'}
    both = {"label": ["berth.deployment=mine", f"berth.place={PLACE}"]}
    assert (
        json.loads(ask("GET", "/volumes", {"filters": json.dumps(both)}).query["filters"]) == both
    )


@pytest.mark.parametrize(
    "filters",
    [
        None,
        {},
        {"label": []},
        {"label": ["berth.deployment"]},
        {"label": ["berth.deployment=other"]},
        {"label": ["berth.deployment=mine", "a"]},
        {"label": {"berth.deployment=mine": True}},
        {"label": "berth.deployment=mine"},
        {"label": ["berth.deployment=mine", 5]},
        {"label": ["berth.deployment=mine"], "name": ["x"]},
        {"Label": ["berth.deployment=mine"]},
    ],
)
@pytest.mark.parametrize("path", ["/containers/json", "/volumes"])
def test_lists_without_our_filter_are_refused(path: str, filters: object) -> None:
    query = {} if filters is None else {"filters": json.dumps(filters)}
    with pytest.raises(EngineCallRefused, match=r"label=berth\.deployment=mine"):
        ask("GET", path, query)


def test_filters_with_a_name_twice_are_refused() -> None:
    twice = '{"label": ["berth.deployment=mine"], "label": ["x"]}'
    with pytest.raises(EngineCallInvalid, match="twice"):
        ask("GET", "/containers/json", {"filters": twice})


def test_a_container_is_created_with_the_body_that_was_judged() -> None:
    order = ask("POST", "/containers/create", {"name": QUALIFIED}, creation())
    assert (order.query, order.body) == ({"name": QUALIFIED}, creation())
    assert len(order.conditions) == 4


def test_volumes_are_made_with_labels_only() -> None:
    labels = {"berth.deployment": "mine", "berth.place": PLACE, "berth.home": QUALIFIED}
    body = {"Name": VOLUME, "Labels": labels}
    order = ask("POST", "/volumes/create", body=body)
    assert order.body == body
    assert order.conditions == (OwnVolume(VOLUME, may_be_missing=True),)
    for worse in (
        {**body, "Driver": "local"},
        {**body, "DriverOpts": {"type": "none", "o": "bind", "device": "/"}},
        {**body, "driveropts": {"device": "/"}},
        {**body, "Name": "berth-other"},
        {**body, "Name": "other"},
        {**body, "Labels": {**labels, "berth.deployment": "other"}},
        {**body, "Labels": {**labels, "berth.home": "repo-1.other"}},
        {**body, "Labels": {**labels, "more": ""}},
        {**body, "Labels": {**labels, "berth.place": "../x"}},
        {**body, "Labels": {**labels, "berth.home": 5}},
        {"Name": VOLUME},
        {"Labels": labels},
    ):
        with pytest.raises(EngineCallRefused):
            ask("POST", "/volumes/create", body=worse)


def test_volumes_are_looked_at_and_removed() -> None:
    assert ask("GET", f"/volumes/{VOLUME}").conditions == (OwnVolume(VOLUME, hides=True),)
    assert ask("DELETE", f"/volumes/{VOLUME}").conditions == (OwnVolume(VOLUME),)
    for name in ("berth-repo-1.other", "repo-1.mine", "berth_data", "berth-data.mine", "prune"):
        for method in ("GET", "DELETE"):
            with pytest.raises(EngineCallRefused, match="is not the name of a volume of mine"):
                ask(method, f"/volumes/{name}")


NETWORK = {
    "Name": "berth-mine",
    "Driver": "bridge",
    "Options": {
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
    },
    "CheckDuplicate": True,
    "Labels": {"berth.deployment": "mine"},
}


def test_the_network_is_for_tcp_only() -> None:
    assert ask("POST", "/networks/create", body=NETWORK, terms=TCP_TERMS).body == NETWORK
    looked_at = ask("GET", "/networks/berth-mine", terms=TCP_TERMS)
    assert looked_at.conditions == (OwnNetwork("berth-mine", hides=True),)
    for terms, body in (
        (TERMS, NETWORK),
        (TCP_TERMS, {**NETWORK, "Name": "other"}),
        (TCP_TERMS, {**NETWORK, "Driver": "macvlan"}),
        (TCP_TERMS, {**NETWORK, "Options": {"parent": "eth0"}}),
        (TCP_TERMS, {**NETWORK, "Ingress": True}),
    ):
        with pytest.raises(EngineCallRefused):
            ask("POST", "/networks/create", body=body, terms=terms)
    for terms, name in ((TERMS, "berth-mine"), (TCP_TERMS, "bridge")):
        with pytest.raises(EngineCallRefused):
            ask("GET", f"/networks/{name}", terms=terms)


@pytest.mark.parametrize(
    "call",
    [
        "GET /_ping",
        "HEAD /_ping",
        "GET /events",
        "GET /system/df",
        "POST /auth",
        "POST /build",
        "POST /session",
        "POST /grpc",
        "POST /commit",
        "GET /images/json",
        "POST /images/create",
        "POST /images/load",
        "GET /images/search",
        "POST /images/prune",
        "GET /images/other/json",
        "GET /images/berth-agent/json",
        "GET /images/berth-agent:1/get",
        "GET /images/berth-agent:1/history",
        "POST /images/berth-agent:1/push",
        "POST /images/berth-agent:1/tag",
        "DELETE /images/berth-agent:1",
        "POST /containers/prune",
        f"POST /containers/{QUALIFIED}/exec",
        "POST /exec/0123/start",
        f"POST /containers/{QUALIFIED}/attach",
        f"GET /containers/{QUALIFIED}/attach/ws",
        f"GET /containers/{QUALIFIED}/archive",
        f"PUT /containers/{QUALIFIED}/archive",
        f"GET /containers/{QUALIFIED}/export",
        f"GET /containers/{QUALIFIED}/top",
        f"GET /containers/{QUALIFIED}/stats",
        f"GET /containers/{QUALIFIED}/changes",
        f"POST /containers/{QUALIFIED}/update",
        f"POST /containers/{QUALIFIED}/kill",
        f"POST /containers/{QUALIFIED}/restart",
        f"POST /containers/{QUALIFIED}/resize",
        f"POST /containers/{QUALIFIED}/wait",
        f"POST /containers/{QUALIFIED}/json",
        f"get /containers/{QUALIFIED}/json",
        f"GET /containers/{QUALIFIED}",
        "GET /containers/postgres/json",
        "POST /containers/postgres.mine/stop",
        "POST /containers/repo-1.other/stop",
        "DELETE /containers/0123456789ab",
        "POST /containers/repo-1.mine.mine/start",
        "POST /volumes/prune",
        "GET /networks",
        "POST /networks/prune",
        "DELETE /networks/berth-mine",
        "POST /networks/berth-mine/connect",
        "POST /networks/bridge/connect",
        "POST /swarm/init",
        "GET /swarm",
        "POST /services/create",
        "GET /nodes",
        "GET /tasks",
        "GET /secrets",
        "POST /configs/create",
        "GET /plugins",
        "POST /plugins/pull",
        "GET /distribution/x/json",
    ],
)
@pytest.mark.parametrize("terms", [TERMS, TCP_TERMS])
def test_all_else_is_refused(call: str, terms: Terms) -> None:
    method, _, path = call.partition(" ")
    with pytest.raises(EngineCallRefused):
        ask(method, path, terms=terms)


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", f"/containers/{QUALIFIED}/json", {"size": "1"}),
        ("GET", f"/containers/{QUALIFIED}/logs", {"follow": "1"}),
        ("GET", f"/containers/{QUALIFIED}/logs", {"tail": "all"}),
        ("POST", f"/containers/{QUALIFIED}/start", {"checkpoint": "x"}),
        ("POST", f"/containers/{QUALIFIED}/start", {"detachKeys": "x"}),
        ("POST", f"/containers/{QUALIFIED}/stop", {"t": "-1"}),
        ("POST", f"/containers/{QUALIFIED}/stop", {"signal": "KILL"}),
        ("POST", f"/containers/{QUALIFIED}/rename", {"name": "postgres"}),
        ("POST", f"/containers/{QUALIFIED}/rename", {"name": "repo-1.other"}),
        ("POST", f"/containers/{QUALIFIED}/rename", {}),
        ("DELETE", f"/containers/{QUALIFIED}", {"v": "1"}),
        ("DELETE", f"/volumes/{VOLUME}", {"force": "1"}),
        ("POST", "/containers/create", {"name": QUALIFIED, "platform": "linux"}),
        ("GET", "/containers/json", {"limit": "5", "filters": json.dumps(OURS)}),
    ],
)
def test_parameters_are_the_ones_we_use(method: str, path: str, query: dict[str, str]) -> None:
    with pytest.raises(EngineCallRefused):
        ask(method, path, query, creation() if path.endswith("create") else None)


def test_calls_without_a_body_have_none() -> None:
    # Very old engines took a container's configuration at its start.
    with pytest.raises(EngineCallRefused, match="has no body"):
        ask("POST", f"/containers/{QUALIFIED}/start", body={"Privileged": True})


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]),
    st.lists(
        st.sampled_from(["containers", "volumes", "json", "create", QUALIFIED, VOLUME, "prune"])
        | st.from_regex(r"\A[A-Za-z0-9_.:-]{1,8}\Z"),
        min_size=1,
        max_size=4,
    ),
    st.dictionaries(st.sampled_from(["name", "filters", "force", "t"]), st.text(max_size=8)),
    st.none() | st.dictionaries(st.sampled_from(["Name", "Labels", "Image"]), st.text(max_size=8)),
)
def test_whatever_goes_through_is_about_things_of_the_deployment(
    method: str, parts: list[str], query: dict[str, str], body: object
) -> None:
    try:
        order = ask(method, "/" + "/".join(parts), query, body)
    except EngineError:
        return
    assert order.conditions or order.path in {"/version", "/info"}
