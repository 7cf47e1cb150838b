"""Find the commits of a task's checkpoints by the steps of its loop.

A checkpoint's key is the number of the step that made it. A step that changed nothing has none of
its own: the newest before it counts.
"""

from dataclasses import dataclass
from pathlib import Path

from agent.checkpoint_record import START_NAME
from agent.git import run_git


@dataclass(frozen=True, slots=True)
class Commits:
    """The checkpoints of one repository of a task, by step; 0 is the start of the task."""

    by_step: dict[int, str]

    def at(self, step: int | None) -> str:
        """The newest at or before a step; None asks for the newest of all."""
        return self.by_step[max(each for each in self.by_step if step is None or each <= step)]


async def read_commits(shadow: Path, task_id: str, start: str) -> Commits:
    """The checkpoints in a private git directory.

    Args:
        shadow: The git directory.
        task_id: The task.
        start: What its tree started from, for a task that had no reason for a checkpoint then.

    Raises:
        GitFailed: The git directory cannot be read.
    """
    listed = await run_git(
        ["for-each-ref", "--format=%(objectname) %(refname:lstrip=3)", f"refs/berth/{task_id}/"],
        shadow,
        environment={"GIT_DIR": str(shadow)},
    )
    found = {0: start}
    for line in listed.text.splitlines():
        commit, key = line.split(" ", 1)
        if key == START_NAME:
            found[0] = commit
        elif key.isdecimal():
            found[int(key)] = commit
    return Commits(found)
