"""The decision what to do about a container that nobody uses."""

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.domain.container import ContainerState


class IdleAction(StrEnum):
    """What to do about an idle container."""

    LEAVE = "leave"
    PAUSE = "pause"
    STOP = "stop"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class IdleLimits:
    """After how many seconds without use a container is paused, stopped, removed; 0: never."""

    pause_seconds: float
    stop_seconds: float
    remove_seconds: float

    @property
    def shortest(self) -> float | None:
        """The first of them to be reached; None if nothing ever happens."""
        return min(filter(None, (self.pause_seconds, self.stop_seconds, self.remove_seconds)),
                   default=None)  # fmt: skip


def decide_idle(
    state: ContainerState,
    idle_seconds: float,
    limits: IdleLimits,
    *,
    in_use: bool,
    may_remove: bool,
) -> IdleAction:
    """What to do about a container now; the strongest action that is due and changes anything.

    Args:
        state: Its state.
        idle_seconds: How long ago it was last used.
        limits: When what is due.
        in_use: A task works in it or will go on in it: nothing is done.
        may_remove: Its work is kept elsewhere; without that it is not removed, however old.
    """
    if in_use:
        return IdleAction.LEAVE
    if may_remove and _is_due(limits.remove_seconds, idle_seconds):
        return IdleAction.REMOVE
    runs = state in {ContainerState.RUNNING, ContainerState.PAUSED}
    if runs and _is_due(limits.stop_seconds, idle_seconds):
        return IdleAction.STOP
    if state is ContainerState.RUNNING and _is_due(limits.pause_seconds, idle_seconds):
        return IdleAction.PAUSE
    return IdleAction.LEAVE


def _is_due(limit_seconds: float, idle_seconds: float) -> bool:
    return limit_seconds > 0 and idle_seconds >= limit_seconds
