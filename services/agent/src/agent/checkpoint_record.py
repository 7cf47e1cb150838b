"""What is kept of a task's checkpoints beside their commits, in the task's record."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from agent.errors import StorageFailed
from agent.journal import write_whole
from agent.worktree_state import Branch

START = ""
"""The key of the checkpoint before all calls."""
START_NAME = "start"
_FILE = "checkpoints.json"


@dataclass(frozen=True, slots=True)
class PartState:
    """One repository at a checkpoint.

    Args:
        commit: Has the tree; at the start it is the start commit.
        tree: The commit's tree.
        branch: The branch the worktree was on.
        left_out: Paths that no commit carries, such as files that are too large.
        empty: Directories without files.
        staged: The tree of the index; empty if it is the commit's, which otherwise has beyond it
            earlier entries of paths that are left out.
    """

    commit: str
    tree: str
    branch: Branch | None = None
    left_out: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    staged: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A task's tree after a call.

    Args:
        key: Of the call.
        parts: The repositories by name.
        failed: Why it is none; empty if it is one.
        came: It was made elsewhere: what it left out is not in the tree here.
    """

    key: str
    parts: dict[str, PartState]
    failed: str = ""
    came: bool = False

    @property
    def state(self) -> str:
        """The name of the directory with git's state of the worktrees."""
        return state_name(self.key)


@dataclass(frozen=True, slots=True)
class History:
    """The newest checkpoint and the one before it."""

    last: Checkpoint
    previous: Checkpoint | None = None

    def before(self, key: str) -> Checkpoint:
        """The newest that does not have the effect of a call."""
        if self.last.key == key and self.previous is not None:
            return self.previous
        return self.last

    def save(self, directory: Path) -> None:
        """Write to a task's record: whole, or not at all."""
        write_whole(directory / _FILE, json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """What a task's record has; None if it has nothing yet.

        Raises:
            StorageFailed: It was damaged, which only a task can have done.
        """
        try:
            data = json.loads((directory / _FILE).read_bytes())
            previous = data["previous"]
            return cls(
                _checkpoint(data["last"]), None if previous is None else _checkpoint(previous)
            )
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, AttributeError):
            raise StorageFailed(f"the checkpoints of task {directory.name} are damaged") from None


def state_name(key: str) -> str:
    """The name of the directory with git's state of the worktrees; no key begins with a dot."""
    return key or f".{START_NAME}"


def _checkpoint(data: dict[str, Any]) -> Checkpoint:
    parts = {name: _part_state(each) for name, each in data["parts"].items()}
    # What came later into the record is not in one that was written before.
    return Checkpoint(data["key"], parts, data["failed"], data.get("came", False))


def _part_state(data: dict[str, Any]) -> PartState:
    branch = None if data["branch"] is None else Branch(**data["branch"])
    listed = {name: tuple(data[name]) for name in ("left_out", "empty")}
    return PartState(data["commit"], data["tree"], branch, **listed, staged=data.get("staged", ""))
