"""The order in which containers are started."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

PARALLEL_STARTS = 4

_Turn = asyncio.Future[None]


class StartGate:
    """Lets a few starts through at once; those that somebody waits for go first.

    Args:
        places: How many may be inside at once.
    """

    def __init__(self, places: int = PARALLEL_STARTS) -> None:
        self._free = places
        self._waiting: list[tuple[bool, int, _Turn]] = []
        self._numbers = count()

    @asynccontextmanager
    async def enter(self, *, patient: bool = False) -> AsyncIterator[None]:
        """Be inside while the context lasts; the patient let all others go before."""
        turn: _Turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (patient, next(self._numbers), turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # admitted in the same moment
                self._leave()
            raise
        try:
            yield
        finally:
            self._leave()

    def _admit(self) -> None:
        while self._free and self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

    def _leave(self) -> None:
        self._free += 1
        self._admit()
