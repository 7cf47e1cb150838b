"""The decision what a starting orchestrator does about a container that it finds."""

from enum import StrEnum

from orchestrator.domain.container import Container, ContainerState


class Adoption(StrEnum):
    """What to do about a container that was found."""

    ADOPT = "adopt"  # use it as it is; nothing in it is restarted
    REPLACE = "replace"  # end its processes and keep its work: the next task starts it anew
    REMOVE = "remove"  # nobody owns it: away, with its work
    LEAVE = "leave"  # not ours to touch


def decide_adoption(
    container: Container,
    *,
    is_known: bool,
    is_foreign: bool,
    is_unfinished: bool,
    is_healthy: bool,
) -> Adoption:
    """What to do about a container of our deployment.

    Args:
        container: As it was found.
        is_known: A workspace that may still be used has this container.
        is_foreign: A live orchestrator other than us has its lease.
        is_unfinished: A task without an ending works in it, or waits for us to go on in it.
        is_healthy: Its worker answers; says nothing unless it runs.
    """
    if is_foreign:
        return Adoption.LEAVE
    if not (is_known or is_unfinished):
        return Adoption.REMOVE if container.made_here else Adoption.LEAVE
    if container.state is ContainerState.RUNNING and not is_healthy:
        return Adoption.REPLACE if container.made_here else Adoption.LEAVE
    if container.state is ContainerState.BROKEN:
        return Adoption.REPLACE if container.made_here else Adoption.LEAVE
    return Adoption.ADOPT
