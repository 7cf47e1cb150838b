"""A deployment: the name that tells its containers from others on the same machine."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_DEPLOYMENT = "default"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Maps container names to names that are unique on an engine or in a data directory.

    The default deployment keeps plain names, as users expect them; others append theirs. Container
    names never hold a dot, so the two cannot meet.
    """

    name: str = DEFAULT_DEPLOYMENT

    def qualify(self, name: str) -> str:
        """The name under which the container `name` exists on this machine."""
        return name if self.name == DEFAULT_DEPLOYMENT else f"{name}.{self.name}"

    def plain(self, qualified: str) -> str | None:
        """The container name behind `qualified`, or None if it is another deployment's."""
        name, _, deployment = qualified.partition(".")
        return name if (deployment or DEFAULT_DEPLOYMENT) == self.name else None


def fingerprint(**facts: object) -> str:
    """A short digest of what a container is made from; equal facts give equal digests.

    Args:
        facts: JSON values.
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def place_of(data_dir: Path) -> str:
    """A short digest that names a data directory."""
    return hashlib.sha256(os.fsencode(data_dir.absolute())).hexdigest()[:12]
