"""Tasks that outlive their process."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from orchestrator.domain.steps import StepRecord

T = TypeVar("T")


class Steps(Protocol):
    """The steps of one task, each of which is completed once."""

    async def run(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` and keep its result or error; if it was completed before, return that.

        Raises `StaleLease` when another orchestrator has taken the task; nothing is kept then.

        After a crash in the middle of `work` it is done again: whatever it does outside must be
        safe to repeat. A cancellation is not a completion.

        Args:
            name: Names the step in the record; the same on every run of the task.
            kind: A dataclass that the result is kept as, in JSON.
            work: What to do.
        """
        ...


RunTaskDurably = Callable[[str, Steps], Awaitable[None]]
"""Runs the task of an id with its steps; called again from the top after a crash.

A task that raises `StaleLease` or `DatabaseUnavailable` has not ended. If it is still this
orchestrator's it goes back to the queue, where any orchestrator may take it.
"""


class Engine(Protocol):
    """Carries tasks across crashes, in order within each workspace."""

    async def start(self, run: RunTaskDurably) -> None:
        """Begin to run submitted tasks with `run`, also those that an earlier process began.

        Raises:
            DatabaseUnavailable: The queue cannot be set up.
        """
        ...

    async def submit(self, task_id: str, workspace_id: str) -> None:
        """Queue a task for good; once this returns, no crash loses it. Twice is once."""
        ...

    async def owners(self) -> frozenset[str]:
        """The executors that have begun tasks and not ended them, dead or alive."""
        ...

    async def recover(self, executor_ids: Sequence[str]) -> int:
        """Queue the begun tasks of executors that are dead; returns how many there were.

        From then on what they themselves still record of these tasks' steps is refused.
        """

    async def completed(self, task_id: str) -> Sequence[StepRecord]:
        """The steps that a task has completed so far, in order."""
        ...

    async def stop(self) -> None:
        """Take no more tasks; those that were cancelled go on at the next `start`."""
        ...
