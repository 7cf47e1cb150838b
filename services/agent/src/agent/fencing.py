"""Which orchestrator may still give orders: the one with the newest lease.

Each request tells the generation of its sender's lease on the workspace. Once a higher one was
seen, whoever sends a lower one has lost the workspace without knowing it yet, and is refused.
"""

import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.access import OPEN_PATHS
from agent.answers import answer
from agent.errors import BadRequest, StaleLease, StorageFailed, WorkerError

HEADER = "berth-generation"
_GENERATION = re.compile("[0-9]{1,18}")


class Generations:
    """Remembers the highest generation seen, also across a restart of the worker.

    Args:
        file: Where it is kept. Tools could change the file, so while we run our memory counts.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._highest = -1

    def admit(self, generation: int) -> None:
        """Let the holder of this generation give orders.

        Raises:
            StaleLease: A higher one was seen.
            StorageFailed: It cannot be kept.
        """
        if self._highest < 0:
            self._highest = self._read()
        if generation < self._highest:
            raise StaleLease(
                f"lease generation {generation} is over, {self._highest} has taken its place"
            )
        if generation > self._highest:
            self._write(generation)
            self._highest = generation

    def _read(self) -> int:
        try:
            text = self._file.read_text()
        except FileNotFoundError:
            return 0
        except (OSError, ValueError):
            text = ""
        if not _GENERATION.fullmatch(text):
            raise StorageFailed(f"{self._file.name} was damaged")
        return int(text)

    def _write(self, generation: int) -> None:
        new = self._file.with_name(f"{self._file.name}.new")
        new.write_text(str(generation))
        new.replace(self._file)


class RequireNewestLease:
    """Middleware behind the one that knows the claimant: it lets only the newest lease through."""

    def __init__(self, app: ASGIApp, generations: Generations) -> None:
        self._app = app
        self._generations = generations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                self._generations.admit(read_generation(Headers(scope=scope)))
            except WorkerError as error:
                await answer(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def read_generation(headers: Headers) -> int:
    """The generation that a request was sent under; 0 if it tells none.

    Raises:
        BadRequest: It is not a number.
    """
    text = headers.get(HEADER, "0")
    if not _GENERATION.fullmatch(text):
        raise BadRequest(f"not a lease generation: {text[:32]!r}")
    return int(text)
