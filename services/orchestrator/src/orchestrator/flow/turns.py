"""Taking turns: one at a time in each workspace."""

import asyncio
from collections import defaultdict


class Turns:
    """Locks by workspace, shared by all that must not work on the same one at once."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def of(self, workspace_id: str) -> asyncio.Lock:
        """The lock of a workspace."""
        return self._locks[workspace_id]
