"""What models are saying at this moment, heard by every orchestrator's readers."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from orchestrator.domain.live_text import LiveText


class LiveTextReader(Protocol):
    """One reader of one task's live text.

    It holds a bounded amount: what comes while it is full is lost, which its reader sees as a gap
    between one piece's end and the next one's offset.
    """

    async def wait(self) -> None:
        """Wait until there is something to take."""
        ...

    def take(self) -> Sequence[LiveText]:
        """What has come since the last time, in order; possibly nothing."""
        ...


class LiveTextChannel(Protocol):
    """Carries text from the task that a model speaks in to whoever follows it.

    Nothing is kept. Pieces arrive in order and at most once, or not at all.
    """

    def publish(self, piece: LiveText) -> None:
        """Send a piece soon; it never waits or fails, and drops what cannot be sent."""
        ...

    async def flush(self, task_id: str) -> None:
        """Wait, for a moment at most, until what was published for a task is sent or dropped."""
        ...

    def follow(self, task_id: str) -> AbstractAsyncContextManager[LiveTextReader]:
        """A reader of a task's text, from the moment this is entered on.

        Raises:
            DatabaseUnavailable: Nothing can be heard now.
        """
        ...
