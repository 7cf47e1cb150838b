"""The way out of a container."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from orchestrator.domain.container import Container
from orchestrator.domain.egress import EgressPass
from orchestrator.domain.events import NewEvent

Report = Callable[[NewEvent], Awaitable[object]]
"""Records an event of the task."""


class Admission(Protocol):
    """A task's right to use its container's way out."""

    @property
    def egress_pass(self) -> EgressPass | None:
        """What its tools need; None where the container has no way out."""
        ...

    def take_refusals(self) -> tuple[str, ...]:
        """A sentence for each thing refused since this was last asked."""
        ...


class Egress(Protocol):
    """Lets tasks out of their containers, to where the operator allows it."""

    def admit(
        self, task_id: str, container: Container, report: Report
    ) -> AbstractAsyncContextManager[Admission]:
        """Open the container's way out for a task while the context lasts.

        What it reaches and is refused becomes events of the task; the sums follow at the end, when
        its connections are cut.

        Raises:
            RuntimeFailure: The container keeps us from opening it.
        """
        ...
