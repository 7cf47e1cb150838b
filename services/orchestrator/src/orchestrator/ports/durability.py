"""Tasks that outlive their process."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from orchestrator.domain.steps import StepRecord

T = TypeVar("T")


class Steps(Protocol):
    """The steps of one task, each of which is completed once."""

    async def run(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` and keep its result or error; if it was completed before, return that.

        After a crash in the middle of `work` it is done again: whatever it does outside must be
        safe to repeat. A cancellation is not a completion.

        Args:
            name: Names the step in the record; the same on every run of the task.
            kind: A dataclass that the result is kept as, in JSON.
            work: What to do.
        """
        ...


RunTaskDurably = Callable[[str, Steps], Awaitable[None]]
"""Runs the task of an id with its steps; called again from the top after a crash."""


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

    async def completed(self, task_id: str) -> Sequence[StepRecord]:
        """The steps that a task has completed so far, in order."""
        ...

    async def stop(self) -> None:
        """Take no more tasks; those that were cancelled go on at the next `start`."""
        ...
