"""Where things lie in a workspace.

<workspace>/
├── repositories/<name>.git      one bare clone a repository
├── tasks/<task>/                a task's tree: what its tools see as their root
│   ├── …                        the worktree, or one directory a repository, each with a git
│   │                            directory of its own that borrows the clone's objects
│   ├── files/                   what the caller gave to the task
│   └── .berth/outputs/          long tool outputs, kept whole
├── records/<task>/              what the worker knows of a task, outside its tree
│   ├── task.json                start commits, placed files
│   ├── journal/<key>.json       what became of each tool call
│   ├── checkpoints.json         the newest checkpoint of the tree, and the one before it
│   ├── states/                  git's own state of the worktrees at these two
│   ├── tree                     a link to the tree, if that is an earlier task's
│   ├── successor                the task that goes on in this one's tree
│   └── <name>.git/              a private git directory: to compare the tree with its start, and
│                                for its checkpoints
├── generation                   the highest lease generation that has given orders
└── caches/                      what package managers downloaded, and apt unpacked
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import BadRequest

PRIVATE = ".berth"
OUTPUTS = "outputs"
FILES = "files"
SUCCESSOR = "successor"
TREE = "tree"
INCOMING = ".incoming-"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def checked_name(name: str) -> str:
    """The name, if it can be one path component.

    Raises:
        BadRequest: It cannot.
    """
    if not _NAME.fullmatch(name) or name.endswith((".lock", ".git", ".")) or ".." in name:
        raise BadRequest(f"not a valid name: {name[:64]!r}")
    return name


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths in one workspace."""

    workspace: Path

    @property
    def repositories(self) -> Path:
        """The directory of all clones."""
        return self.workspace / "repositories"

    def clone(self, name: str) -> Path:
        """The bare clone of a repository."""
        return self.repositories / f"{checked_name(name)}.git"

    def task(self, task_id: str) -> Path:
        """The root of a task's tree, which may be an earlier task's."""
        name = checked_name(task_id)
        with suppress(OSError):  # no link: the tree is its own
            name = checked_name((self.record(name) / TREE).readlink().name)
        return self.workspace / "tasks" / name

    def record(self, task_id: str) -> Path:
        """What is known of a task, outside its tree."""
        return self.workspace / "records" / checked_name(task_id)

    def shadow(self, task_id: str, name: str) -> Path:
        """The private git directory of one repository of a task."""
        return self.record(task_id) / f"{checked_name(name)}.git"

    def git_directory(self, task_id: str, directory: str) -> Path:
        """The git directory that a task itself uses in a directory of its tree."""
        return self.task(task_id) / directory / ".git"

    @property
    def generation(self) -> Path:
        """The file with the highest lease generation seen."""
        return self.workspace / "generation"

    @property
    def caches(self) -> Path:
        """Where package managers keep their downloads."""
        return self.workspace / "caches"
