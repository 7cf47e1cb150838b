"""Which containers this process works in, and who may act on one that it does not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Door:
    """The way into one container.

    `users` counts those who work in it. `kept` says that an earlier process's tasks do. Both change
    only while the lock is held, except that users may leave at any time.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    kept: bool = False
    visitors: int = 0

    @property
    def in_use(self) -> bool:
        """Whether something may run in it that must not be killed."""
        return bool(self.users) or self.kept


class Occupancy:
    """One door a container.

    A task that goes in and a reaper that found the container empty exclude each other: whoever is
    first is waited for. So nothing is paused, stopped or removed under a task, and no task fails
    because of it.
    """

    def __init__(self) -> None:
        self._doors: dict[str, Door] = {}

    @asynccontextmanager
    async def at(self, name: str) -> AsyncIterator[Door]:
        """Stand alone at the door of a container while the context lasts."""
        door = self._doors.setdefault(name, Door())
        door.visitors += 1
        try:
            async with door.lock:
                yield door
        finally:
            door.visitors -= 1
            self._forget(name, door)

    async def keep(self, name: str) -> None:
        """Take note that tasks of an earlier process still run in a container."""
        async with self.at(name) as door:
            door.kept = True

    def leave(self, name: str) -> None:
        """Stop working in a container; with the last user the earlier process's tasks end too."""
        door = self._doors[name]
        door.users -= 1
        if not door.users:
            door.kept = False
        self._forget(name, door)

    def _forget(self, name: str, door: Door) -> None:
        if not (door.visitors or door.in_use):
            self._doors.pop(name, None)
