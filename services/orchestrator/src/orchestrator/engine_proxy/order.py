"""What goes on to the engine in place of a call, and what must hold there first."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ID = "{id}"
"""Stands in an order's path for the id of its container."""


@dataclass(frozen=True, slots=True)
class OwnContainer:
    """The container exists and is the deployment's.

    Args:
        name: Its name.
        hides: A stranger's is answered as if there were none: whoever asks wants to know only
            whether the deployment has one.
        is_mounted: What it has mounted from the machine must still be where it was.
    """

    name: str
    hides: bool = False
    is_mounted: bool = False


@dataclass(frozen=True, slots=True)
class OwnVolume:
    """The volume is the deployment's.

    Args:
        name: Its name.
        hides: As for containers.
        may_be_missing: The call makes it then.
    """

    name: str
    hides: bool = False
    may_be_missing: bool = False


@dataclass(frozen=True, slots=True)
class OwnNetwork:
    """The network is the deployment's.

    Args:
        name: Its name.
        hides: As for containers.
    """

    name: str
    hides: bool = False


@dataclass(frozen=True, slots=True)
class KnownImage:
    """One of the images that containers may be made from has this id now."""

    id: str


@dataclass(frozen=True, slots=True)
class PlainPath:
    """A directory, or else a file, to which no symbolic link leads."""

    path: Path
    is_directory: bool


Condition = OwnContainer | OwnVolume | OwnNetwork | KnownImage | PlainPath


@dataclass(frozen=True, slots=True)
class Order:
    """A request to the engine, written by us.

    Args:
        method: The HTTP method.
        path: Its path, without the version.
        query: Its parameters.
        body: Its body as a JSON object; None for none.
        conditions: What must hold; at most one is about a container.
    """

    method: str
    path: str
    query: Mapping[str, str]
    body: Mapping[str, object] | None = None
    conditions: tuple[Condition, ...] = ()
