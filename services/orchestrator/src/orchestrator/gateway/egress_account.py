"""What a task uses of its container's way out, and how much of it that may be."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.domain import egress_events
from orchestrator.domain.egress import Destination, EgressPass, EgressUse
from orchestrator.domain.events import NewEvent
from orchestrator.errors import EgressError, EgressExhausted
from orchestrator.gateway.egress_terms import EgressTerms, LookUp
from orchestrator.ports import Report

MAX_EVENTS = 200
"""Most refusals, and most hosts, of one task that become events of their own."""
MAX_REFUSALS_TOLD = 5
"""Most refusals that are told after one tool call."""


@dataclass(slots=True)
class WorkspaceUse:
    """What all tasks of a workspace use together."""

    bytes: int = 0
    connections: int = 0


@dataclass(slots=True)
class _Moved:
    connections: int = 0
    sent: int = 0
    received: int = 0


class Account:
    """One task's use of the way out; `ports.Admission` for as long as it is open.

    Args:
        task_id: The task.
        workspace: What its workspace uses, this task included.
        egress_pass: What the task's tools are told.
        terms: What both may do.
        look_up: Gives the terms as they are now.
        report: Records events of the task.
    """

    def __init__(
        self,
        task_id: str,
        workspace: WorkspaceUse,
        egress_pass: EgressPass,
        *,
        terms: EgressTerms,
        look_up: LookUp,
        report: Report,
    ) -> None:
        self.task_id = task_id
        self.egress_pass = egress_pass
        self.idle_seconds = terms.limits.idle_seconds
        self._workspace = workspace
        self._terms = terms
        self._report = report
        self._look_up = look_up
        self._moved: dict[Destination, _Moved] = {}
        self._bytes = 0
        self._open: set[asyncio.Task[object]] = set()
        self._refusals = 0
        self._reported: set[str] = set()
        self._untold: dict[str, None] = {}

    def is_opened_by(self, password: str) -> bool:
        """Whether these are the credentials that the task was given."""
        return secrets.compare_digest(password.encode(), self.egress_pass.password.encode())

    async def current_terms(self) -> EgressTerms:
        """What the task may do now; its limits count from now on."""
        self._terms = await self._look_up()
        return self._terms

    @contextmanager
    def connection(self, destination: Destination) -> Iterator[None]:
        """The current asyncio task is a connection of the task while the context lasts.

        Raises:
            EgressExhausted: There are too many, or nothing more may be moved.
        """
        self._require_rest()
        self._require_free()
        current = asyncio.current_task()
        if current is None:
            raise RuntimeError("connections are served in asyncio tasks")
        self._open.add(current)
        self._workspace.connections += 1
        self._moved.setdefault(destination, _Moved()).connections += 1
        try:
            yield
        finally:
            self._workspace.connections -= 1
            self._open.discard(current)

    def count(self, destination: Destination, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes that were moved.

        Raises:
            EgressExhausted: They were the last that may be.
        """
        moved = self._moved[destination]
        moved.sent += sent
        moved.received += received
        self._bytes += sent + received
        self._workspace.bytes += sent + received
        self._require_rest()

    async def reach(self, destination: Destination) -> None:
        """Record that the task reached a destination."""
        await self._record_once(egress_events.reached(destination))

    async def refuse(self, error: EgressError, destination: Destination | None) -> None:
        """Record that the task was refused something."""
        self._refusals += 1
        if len(self._untold) < MAX_REFUSALS_TOLD:
            self._untold[error.detail] = None
        await self._record_once(egress_events.refused(error, destination))

    def take_refusals(self) -> tuple[str, ...]:
        """See `ports.Admission.take_refusals`."""
        told = tuple(self._untold)
        self._untold.clear()
        return told

    async def close(self) -> None:
        """Cut the task's connections and record what it moved, if it did anything."""
        for connection in self._open:
            connection.cancel()
        if self._open:
            await asyncio.wait(set(self._open))
        if self._moved or self._refusals:
            uses = [
                EgressUse(destination, moved.connections, moved.sent, moved.received)
                for destination, moved in sorted(self._moved.items(), key=lambda item: item[0])
            ]
            await self._report(egress_events.used(uses, self._refusals, secrets.token_hex(4)))

    async def _record_once(self, event: NewEvent) -> None:
        if event.key in self._reported or len(self._reported) >= MAX_EVENTS:
            return
        self._reported.add(event.key)
        await self._report(event)

    def _require_rest(self) -> None:
        limits = self._terms.limits
        if self._bytes > limits.task_bytes:
            raise EgressExhausted(
                f"The task has moved more than {limits.task_bytes} bytes: the operator sets the "
                "limit with BERTH_EGRESS_TASK_BYTES, or the workspace's settings do."
            )
        if self._workspace.bytes > limits.workspace_bytes:
            raise EgressExhausted(
                f"The tasks of this workspace have moved more than {limits.workspace_bytes} bytes: "
                "the operator sets the limit with BERTH_EGRESS_WORKSPACE_BYTES, or the workspace's "
                "settings do."
            )

    def _require_free(self) -> None:
        limits = self._terms.limits
        if len(self._open) >= limits.task_connections:
            raise EgressExhausted(
                f"The task has {limits.task_connections} connections already: the operator sets "
                "the limit with BERTH_EGRESS_TASK_CONNECTIONS."
            )
        if self._workspace.connections >= limits.workspace_connections:
            raise EgressExhausted(
                f"The workspace has {limits.workspace_connections} connections already: the "
                "operator sets the limit with BERTH_EGRESS_WORKSPACE_CONNECTIONS."
            )
