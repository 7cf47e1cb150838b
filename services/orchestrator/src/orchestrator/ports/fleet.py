"""Several orchestrators on one database."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.domain.fleet import HeldLease


class Leases(Protocol):
    """The right to use a workspace: at most one live executor has it.

    Every acquisition has a higher generation than all before it in its workspace, so that whoever
    checks generations can tell a former holder from the present one.
    """

    async def acquire(self, workspace_id: str) -> int:
        """Take the lease for this executor, and return its generation.

        Waits as long as another live executor holds it, or this one is not registered.
        """
        ...

    async def confirm(self, workspace_id: str, generation: int) -> None:
        """Make sure that the lease is still ours.

        Raises:
            StaleLease: It is not.
        """
        ...

    async def release(self, workspace_id: str, generation: int) -> None:
        """Give the lease up; nothing happens if it is not ours any more."""
        ...

    async def held(self) -> Sequence[HeldLease]:
        """The leases of all live executors, by workspace."""
        ...


class Executors(Protocol):
    """Which orchestrators are alive, by the database's clock.

    Every method may raise `DatabaseUnavailable`.
    """

    async def register(self) -> None:
        """Become alive under our id; a former process with this id is no longer heard."""
        ...

    async def beat(self) -> Mapping[str, int]:
        """Stay alive.

        Returns:
            The generations of the leases that are recorded as ours, by workspace.

        Raises:
            ExecutorBuried: Others have called us dead and may have taken our tasks.
            ExecutorReplaced: Another process has registered under our id.
        """
        ...

    async def bury(self) -> Sequence[str]:
        """Call those dead that were silent for too long, and forget them; returns their ids.

        Each is returned to one caller only. Nobody is buried while we ourselves have not been
        heard for long enough to tell.
        """
        ...

    async def known(self) -> frozenset[str]:
        """All executors that have registered and were not buried since."""
        ...

    async def resign(self) -> None:
        """Say that we end, and give up all leases, so that others need not wait."""
        ...
