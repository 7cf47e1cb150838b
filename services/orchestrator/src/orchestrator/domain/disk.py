"""What a workspace holds on disk, and the decision what to do about it."""

from dataclasses import dataclass, replace
from enum import StrEnum

SLACK_SHARE = 8
STRIKES = 3
CALM_SECONDS = 10.0
CALM_COSTS = 25
EAGER_SECONDS = 1.0
EAGER_COSTS = 10
GIB = 2**30
MIB = 2**20


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What was found when a workspace was measured.

    `seconds` is what measuring took. If it is not `whole` there is more than `used_bytes`: a part
    is out of reach, or there was no time for it.
    """

    used_bytes: int
    seconds: float
    whole: bool = True


class DiskVerdict(StrEnum):
    """What to do after a measurement."""

    WITHIN = "within"  # the limit
    TELL = "tell"  # it was above the limit before we looked
    BEAR = "bear"  # above the limit, but it does not grow
    INTERRUPT = "interrupt"  # end what runs
    STOP = "stop"  # ending what runs did not help: end the container's processes


@dataclass(frozen=True, slots=True)
class DiskRecord:
    """What is remembered of a container's measurements.

    `mark` is the use above the limit that is borne, None while it is within. `strikes` counts how
    often it grew above the limit.
    """

    seen: bool = False
    mark: int | None = None
    strikes: int = 0


def decide_disk(
    record: DiskRecord, use: DiskUse, limit_bytes: int
) -> tuple[DiskVerdict, DiskRecord]:
    """What to do after a measurement, and what to remember of it.

    Above the limit a workspace can be worked in, so that something can be deleted, but it may grow
    by an eighth of the limit only. What cannot be measured whole counts as having grown.
    """
    if use.whole and use.used_bytes <= limit_bytes:
        return DiskVerdict.WITHIN, DiskRecord(seen=True)
    if use.whole and not record.seen:
        return DiskVerdict.TELL, DiskRecord(seen=True, mark=use.used_bytes)
    mark = record.mark
    if use.whole and mark is not None and use.used_bytes <= mark + limit_bytes // SLACK_SHARE:
        return DiskVerdict.BEAR, replace(record, mark=min(mark, use.used_bytes))
    strikes = record.strikes + 1
    verdict = DiskVerdict.STOP if strikes >= STRIKES else DiskVerdict.INTERRUPT
    return verdict, DiskRecord(seen=True, mark=use.used_bytes, strikes=strikes)


@dataclass(frozen=True, slots=True)
class DiskLook:
    """When a container was measured last.

    `free_bytes` is what its file system had left then, None if that cannot be told; `room_bytes` is
    what the workspace had left to its limit, and negative above it.
    """

    at: float
    seconds: float
    room_bytes: int
    free_bytes: int | None


def is_due(look: DiskLook, now: float, free_bytes: int | None, containers: int = 1) -> bool:
    """Whether to measure again.

    Measuring takes a few per cent of the time, for all containers together. It is done sooner if
    the file system has lost as much as the workspace had left, for only then it can have reached
    its limit, and as long as the workspace is above it.

    Args:
        look: The measurement before.
        now: The time, by the same clock as `look.at`.
        free_bytes: What the file system has left now.
        containers: How many are measured in turn.
    """
    since = now - look.at
    if since >= max(CALM_SECONDS, CALM_COSTS * look.seconds * containers):
        return True
    lost = 0
    if look.free_bytes is not None and free_bytes is not None:
        lost = look.free_bytes - free_bytes
    is_pressing = look.room_bytes < 0 or lost > look.room_bytes
    return is_pressing and since >= max(EAGER_SECONDS, EAGER_COSTS * look.seconds)


def disk_sentence(name: str, verdict: DiskVerdict, use: DiskUse, limit_bytes: int) -> str:
    """What the model and the user are told of a verdict on the container `name`."""
    held = f"The workspace holds {_size(use.used_bytes)} on disk"
    if not use.whole:
        held += " and more that cannot be measured: too many files, or directories too deep"
    done = {
        DiskVerdict.INTERRUPT: " The commands that ran were ended.",
        DiskVerdict.STOP: " It went on growing, so its container was stopped.",
    }.get(verdict, "")
    return (
        f"{held}; its limit is {_size(limit_bytes)}.{done} Delete what is not needed, such as "
        "build output and caches, before anything else is written. Without a task, DELETE "
        f"/containers/{name} removes all of it. container.disk_bytes in the workspace's settings, "
        "and BERTH_CONTAINER_DISK_BYTES, set the limit."
    )


def _size(number: int) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / MIB:.1f} MiB"
