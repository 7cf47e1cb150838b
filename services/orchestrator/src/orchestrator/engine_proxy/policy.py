"""Which calls the orchestrator needs, and what becomes of each. Pure; the rest is refused."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.engine_proxy.body import require_same
from orchestrator.engine_proxy.call import Call, read_object
from orchestrator.engine_proxy.creation import judge_creation
from orchestrator.engine_proxy.measuring import judge_measuring
from orchestrator.engine_proxy.order import ID, Order, OwnContainer, OwnNetwork, OwnVolume
from orchestrator.engine_proxy.terms import Terms, shown
from orchestrator.errors import EngineCallRefused
from orchestrator.runtimes.docker_container import DEPLOYMENT_LABEL, HOME_LABEL, PLACE_LABEL
from orchestrator.runtimes.docker_disk import PREFIX as MEASURING_PREFIX
from orchestrator.runtimes.docker_objects import NETWORK_OPTIONS
from orchestrator.settings import Transport

Judge = Callable[[Call, str, Terms], Order]
"""Judges a call whose form is right; the text is the name in its path."""

_SWITCH = r"0|1|[Tt]rue|[Ff]alse"
_OFF = r"0|[Ff]alse"
_ANY = r"(?s:.*)"
_PLACE = re.compile(rf"{re.escape(PLACE_LABEL)}=[0-9a-f]{{1,64}}")


@dataclass(frozen=True, slots=True)
class Rule:
    """A form of calls.

    Args:
        method: The HTTP method.
        path: What the path must match; a group in it is the name of the thing.
        judge: Says what becomes of them.
        query: The parameters that may be given, each with what its value must match.
        has_body: True if they have one.
    """

    method: str
    path: str
    judge: Judge
    query: Mapping[str, str] = field(default_factory=dict)
    has_body: bool = False


def decide(call: Call, terms: Terms) -> Order:
    """What goes to the engine in place of a call.

    Raises:
        EngineCallRefused: Nothing.
        EngineCallInvalid: Its body cannot be read.
    """
    for rule in RULES:
        found = re.fullmatch(rule.path, call.path)
        if found is not None and rule.method == call.method:
            _require_form(call, rule)
            return rule.judge(call, "".join(found.groups()), terms)
    raise EngineCallRefused(
        f"{shown(call.method)} {shown(call.path)} is no call that the orchestrator makes."
    )


def _require_form(call: Call, rule: Rule) -> None:
    for name, value in call.query.items():
        allowed = rule.query.get(name)
        if allowed is None or re.fullmatch(allowed, value) is None:
            raise EngineCallRefused(
                f"{call.method} {call.path} with {shown(name)} = {shown(value)} is never asked for "
                "by the orchestrator."
            )
    if call.body and not rule.has_body:
        raise EngineCallRefused(f"{call.method} {call.path} has no body.")


def _facts(call: Call, _name: str, _terms: Terms) -> Order:
    return Order(call.method, call.path, call.query)


def _image(call: Call, name: str, terms: Terms) -> Order:
    if name not in terms.images:
        raise EngineCallRefused(f"The image {shown(name)} is not one of the deployment's.")
    return Order(call.method, call.path, call.query)


def _containers(call: Call, _name: str, terms: Terms) -> Order:
    return Order(call.method, call.path, {**call.query, "filters": _filters(call, terms)})


def _volumes(call: Call, _name: str, terms: Terms) -> Order:
    return Order(call.method, call.path, {"filters": _filters(call, terms)})


def _filters(call: Call, terms: Terms) -> str:
    """The filters of a list, written anew."""
    filters = read_object(call.query.get("filters", "{}"))
    labels = filters.get("label")
    ours = {terms.label, terms.measuring_label}
    if (
        filters.keys() != {"label"}
        or not isinstance(labels, list)
        or not ours.intersection(each for each in labels if isinstance(each, str))
        or not all(_is_place(each) or each in ours for each in labels)
    ):
        raise EngineCallRefused(f"Lists are given with the filter label={terms.label} only.")
    return json.dumps({"label": labels})


def _is_place(label: object) -> bool:
    return isinstance(label, str) and _PLACE.fullmatch(label) is not None


def _create(call: Call, _name: str, terms: Terms) -> Order:
    name = call.query.get("name", "")
    judge = judge_measuring if name.startswith(MEASURING_PREFIX) else judge_creation
    body, conditions = judge(name, read_object(call.body), terms)
    return Order(call.method, call.path, {"name": name}, body, conditions)


def _inspect(call: Call, name: str, terms: Terms) -> Order:
    return _on_container(call, name, terms, OwnContainer(name, hides=True))


def _start(call: Call, name: str, terms: Terms) -> Order:
    return _on_container(call, name, terms, OwnContainer(name, is_mounted=True))


def _act(call: Call, name: str, terms: Terms) -> Order:
    return _on_container(call, name, terms, OwnContainer(name))


def _rename(call: Call, name: str, terms: Terms) -> Order:
    terms.container(call.query.get("name", ""))
    return _on_container(call, name, terms, OwnContainer(name))


def _on_container(call: Call, name: str, terms: Terms, condition: OwnContainer) -> Order:
    terms.require_container(name)
    # By its id, so that it is the very container that was looked at.
    path = f"/containers/{ID}" + call.path.removeprefix(f"/containers/{name}")
    return Order(call.method, path, call.query, conditions=(condition,))


def _make_volume(call: Call, _name: str, terms: Terms) -> Order:
    asked = read_object(call.body)
    name, labels = asked.get("Name"), asked.get("Labels")
    if not isinstance(name, str) or not isinstance(labels, dict):
        raise EngineCallRefused("A volume needs its name and labels.")
    terms.volume(name)
    home, place = str(labels.get(HOME_LABEL, "")), str(labels.get(PLACE_LABEL, ""))
    terms.container(home)
    if not _is_place(f"{PLACE_LABEL}={place}"):
        raise EngineCallRefused(f"The label {PLACE_LABEL} cannot be {shown(place)}.")
    own = {DEPLOYMENT_LABEL: terms.deployment.name, PLACE_LABEL: place, HOME_LABEL: home}
    wanted = {"Name": name, "Labels": own}
    require_same(asked, wanted, "Creating a volume")
    condition = OwnVolume(name, may_be_missing=True)
    return Order(call.method, call.path, {}, wanted, (condition,))


def _inspect_volume(call: Call, name: str, terms: Terms) -> Order:
    terms.volume(name)
    return Order(call.method, call.path, {}, conditions=(OwnVolume(name, hides=True),))


def _remove_volume(call: Call, name: str, terms: Terms) -> Order:
    terms.volume(name)
    return Order(call.method, call.path, {}, conditions=(OwnVolume(name),))


def _inspect_network(call: Call, name: str, terms: Terms) -> Order:
    _require_network(name, terms)
    return Order(call.method, call.path, {}, conditions=(OwnNetwork(name, hides=True),))


def _make_network(call: Call, _name: str, terms: Terms) -> Order:
    asked = read_object(call.body)
    wanted = {
        "Name": terms.network,
        "Driver": "bridge",
        "Options": NETWORK_OPTIONS,
        "CheckDuplicate": True,
        "Labels": {DEPLOYMENT_LABEL: terms.deployment.name},
    }
    _require_network(terms.network, terms)
    require_same(asked, wanted, "Creating a network")
    return Order(call.method, call.path, {}, wanted)


def _require_network(name: str, terms: Terms) -> None:
    if terms.transport is not Transport.TCP or name != terms.network:
        raise EngineCallRefused(f"The network {shown(name)} is not the deployment's.")


_CONTAINER = "/containers/([^/]+)"
_VOLUME = "/volumes/([^/]+)"
_LIST = {"all": _SWITCH, "limit": "-1", "size": _OFF, "trunc_cmd": _OFF, "filters": _ANY}
_LOGS = {
    **dict.fromkeys(("stdout", "stderr"), _SWITCH),
    **dict.fromkeys(("timestamps", "follow"), _OFF),
    "tail": r"[0-9]{1,9}",
}
_REMOVAL = {"v": _OFF, "link": _OFF, "force": _SWITCH}

RULES = (
    Rule("GET", "/version", _facts),
    Rule("GET", "/info", _facts),
    Rule("GET", "/images/(.+)/json", _image),
    Rule("GET", "/containers/json", _containers, _LIST),
    Rule("POST", "/containers/create", _create, {"name": _ANY}, has_body=True),
    Rule("GET", f"{_CONTAINER}/json", _inspect),
    Rule("GET", f"{_CONTAINER}/logs", _act, _LOGS),
    Rule("POST", f"{_CONTAINER}/start", _start),
    Rule("POST", f"{_CONTAINER}/stop", _act, {"t": r"[0-9]{1,4}"}),
    Rule("POST", f"{_CONTAINER}/pause", _act),
    Rule("POST", f"{_CONTAINER}/unpause", _act),
    Rule("POST", f"{_CONTAINER}/rename", _rename, {"name": _ANY}),
    Rule("DELETE", _CONTAINER, _act, _REMOVAL),
    Rule("GET", "/volumes", _volumes, {"filters": _ANY}),
    Rule("POST", "/volumes/create", _make_volume, has_body=True),
    Rule("GET", _VOLUME, _inspect_volume),
    Rule("DELETE", _VOLUME, _remove_volume),
    Rule("GET", "/networks/([^/]+)", _inspect_network),
    Rule("POST", "/networks/create", _make_network, has_body=True),
)
