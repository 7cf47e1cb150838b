"""One query for all that ask the same at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedReads(Generic[K, V]):
    """Lets whoever asks for a key that is being read wait for that answer.

    Args:
        read: Reads the value of a key.
    """

    def __init__(self, read: Callable[[K], Awaitable[V]]) -> None:
        self._read = read
        self._under_way: dict[K, asyncio.Future[V]] = {}

    async def get(self, key: K) -> tuple[V, bool]:
        """The value, and whether its reading began after this was called.

        Raises:
            Exception: What reading raised, for all that wait for it.
        """
        reading = self._under_way.get(key)
        # One that has ended may not be forgotten yet: who takes its answer, finds nothing new and
        # asks again would go round without ever letting the loop forget it.
        if reading is not None and not reading.done():
            return await asyncio.shield(reading), False
        reading = asyncio.ensure_future(self._read(key))
        self._under_way[key] = reading
        reading.add_done_callback(lambda done: self._forget(key, done))
        # One reader that leaves must not take the answer from the others.
        return await asyncio.shield(reading), True

    def _forget(self, key: K, done: asyncio.Future[V]) -> None:
        if self._under_way.get(key) is done:
            del self._under_way[key]
        if not done.cancelled():
            done.exception()  # where all have left, nobody hears of it
