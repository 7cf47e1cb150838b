"""What a task has from an earlier one."""

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.errors import TaskContinued


class Relation(StrEnum):
    """How a task builds on another, its parent."""

    CONTINUES = "continues"  # goes on in the parent's own tree, after the parent's end
    FORKS = "forks"  # has a tree of its own, as the parent's was after one of its steps


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a task comes from.

    Args:
        parent: The id of the task it builds on.
        relation: How.
        step: The parent's step whose tree and conversation a fork begins with; for a
            continuation None: all of them.
    """

    parent: str
    relation: Relation
    step: int | None = None


def continued(task_id: str, successor: str) -> TaskContinued:
    """The error for a task in whose tree another works."""
    return TaskContinued(
        f"Task {task_id} is continued by {successor}: say it to that one, or fork this one.",
        task_id=task_id,
        continued_by=successor,
    )
