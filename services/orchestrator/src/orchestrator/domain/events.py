"""What happens in a task, as the caller sees it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import JsonValue


class EventKind(StrEnum):
    """The kinds of event; clients may meet new ones and should ignore them."""

    ACCEPTED = "accepted"  # the task exists
    CONTAINER = "container"  # its workspace has a container: reused, started or created
    PREPARED = "prepared"  # the worktree stands at its start commit
    MODEL = "model"  # the model answered: text or calls
    TOOL = "tool"  # a tool call ended
    MESSAGE = "message"  # the model was shown what the user said meanwhile
    EGRESS = "egress"  # the task reached a host, was refused one, or what it moved in all
    NOTICE = "notice"  # something the user should know
    FINISHED = "finished"  # the task has ended; always the last one


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event about to be recorded; `step` is 0 outside the loop.

    With a `key`, a task has one event of this kind, step and key: recorded again after a crash, it
    stays as it is.
    """

    kind: EventKind
    step: int
    data: dict[str, JsonValue]
    key: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A recorded event; `number` rises by one within a task, starting at 1."""

    task_id: str
    number: int
    kind: EventKind
    step: int
    data: dict[str, JsonValue]
    at: datetime
