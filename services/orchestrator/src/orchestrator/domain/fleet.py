"""Several orchestrators on one database: what they know of each other, and who may take over."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

LAPSE_BEATS = 2.5
"""An executor that is silent for so many heartbeats counts as dead; two may be lost."""

LOOKS_A_BEAT = 4
"""How often one looks for the dead: whoever is killed is taken over within three heartbeats."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease that an executor holds at the moment."""

    workspace_id: str
    executor_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Identity:
    """One run of an orchestrator: its lasting id, and a name that only this process has."""

    executor_id: str
    instance: str


class Steadiness:
    """How long an executor has itself been heard without a break.

    When the database was away for everybody, everybody looks dead at its return. So only an
    executor that was heard for as long as it takes to die may call another one dead.

    Args:
        lapse_seconds: After so long without a heartbeat an executor counts as dead.
    """

    def __init__(self, lapse_seconds: float) -> None:
        self._lapse_seconds = lapse_seconds
        self._since = self._last = float("-inf")

    def heard(self, now: float) -> None:
        """A heartbeat was written at this monotonic time."""
        if now - self._last >= self._lapse_seconds:
            self._since = now
        self._last = now

    def may_judge(self, now: float) -> bool:
        """Whether an executor that has been silent for the lapse may be called dead now."""
        was_heard = now - self._last < self._lapse_seconds
        return was_heard and self._last - self._since >= self._lapse_seconds


def lapse(heartbeat_seconds: float) -> float:
    """Seconds without a heartbeat after which an executor counts as dead."""
    return LAPSE_BEATS * heartbeat_seconds


def lost_leases(believed: Mapping[str, int], told: Mapping[str, int]) -> dict[str, int]:
    """Those of the leases we believed to hold that the database gives to nobody or to others.

    Args:
        believed: Generations by workspace, read before the database was asked.
        told: The same as the database tells.
    """
    return {
        workspace_id: generation
        for workspace_id, generation in believed.items()
        if told.get(workspace_id) != generation
    }


def dead_owners(owners: Collection[str], known: Collection[str], own: str) -> frozenset[str]:
    """Executors that have unfinished tasks and are no longer known.

    Args:
        owners: Executors that have begun tasks and not ended them.
        known: Executors that have registered and were not buried since.
        own: Our own id: an executor that reads this is alive, whatever others believe.
    """
    return frozenset(owners) - frozenset(known) - {own}
