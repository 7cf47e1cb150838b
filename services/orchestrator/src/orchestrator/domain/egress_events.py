"""What a task does with its way out, as events."""

from collections.abc import Sequence

from pydantic import JsonValue

from orchestrator.domain.egress import Destination, EgressUse
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.errors import EgressError


def refused(error: EgressError, destination: Destination | None) -> NewEvent:
    """A connection that was not made; one event for each destination and reason."""
    data: dict[str, JsonValue] = {
        "what": "refused",
        "code": error.code,
        "detail": error.detail,
        "host": None if destination is None else destination.host,
        "port": None if destination is None else destination.port,
    }
    whose = error.detail if destination is None else destination.authority
    return NewEvent(EventKind.EGRESS, 0, data, f"{error.code} {whose}")


def reached(destination: Destination) -> NewEvent:
    """The first connection to a destination."""
    data: dict[str, JsonValue] = {
        "what": "reached",
        "host": destination.host,
        "port": destination.port,
    }
    return NewEvent(EventKind.EGRESS, 0, data, f"reached {destination.authority}")


def used(uses: Sequence[EgressUse], refusals: int, key: str) -> NewEvent:
    """What was moved in all while the task held its container; sizes are in bytes.

    Args:
        uses: One for each destination.
        refusals: Connections that were not made.
        key: Tells this hold on the container from others of the same task.
    """
    hosts: list[JsonValue] = [
        {
            "host": use.destination.host,
            "port": use.destination.port,
            "connections": use.connections,
            "sent": use.sent,
            "received": use.received,
        }
        for use in uses
    ]
    data: dict[str, JsonValue] = {
        "what": "used",
        "sent": sum(use.sent for use in uses),
        "received": sum(use.received for use in uses),
        "refusals": refusals,
        "hosts": hosts,
    }
    return NewEvent(EventKind.EGRESS, 0, data, key)
