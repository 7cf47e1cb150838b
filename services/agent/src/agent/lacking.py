"""What a tree that came of checkpoints lacks: what they could not carry.

A commit of a checkpoint names these paths in its message, so that they are known wherever the
commit is. Of those that an earlier commit had, its entry is kept.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.git import run_git
from agent.patch import shown

_HEADING = "Not in it: "
_SUBMODULE = b"160000 "


@dataclass(frozen=True, slots=True)
class Lacking:
    """Paths that a tree does not have as they were when its checkpoint was made.

    Args:
        older: They are as an earlier checkpoint or the start had them.
        missing: They are not there at all.
    """

    older: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """True if there are any."""
        return bool(self.older or self.missing)


def together(each: Iterable[Lacking]) -> Lacking:
    """What several repositories lack."""
    found = list(each)
    return Lacking(
        tuple(path for lacking in found for path in lacking.older),
        tuple(path for lacking in found for path in lacking.missing),
    )


def message(title: str, left_out: Sequence[str]) -> str:
    """The message of a checkpoint's commit.

    Args:
        title: Its first line.
        left_out: What the commit does not have as the tree has it.
    """
    return f"{title}\n\n{_HEADING}{json.dumps(left_out)}\n" if left_out else f"{title}\n"


async def read_left_out(shadow: Path, commit: str) -> tuple[str, ...]:
    """What a checkpoint's commit does not have; nothing if its message does not say.

    Raises:
        GitFailed: It is not here.
    """
    told = await run_git(["cat-file", "commit", commit], shadow, environment=_only(shadow))
    _, _, text = told.stdout.partition(b"\n\n")
    for line in text.decode(errors="replace").splitlines():
        if line.startswith(_HEADING):
            return _paths(line.removeprefix(_HEADING))
    return ()


async def lacking_from(
    shadow: Path, commit: str, left_out: Sequence[str], prefix: str = ""
) -> Lacking:
    """What a tree lacks that was made of a checkpoint's commit.

    Args:
        shadow: A git directory that has it.
        commit: The commit.
        left_out: What it does not have as the tree had it.
        prefix: What comes before the paths of the repository.

    Raises:
        GitFailed: The commit is not here.
    """
    if not left_out:
        return Lacking()
    # Whole, since a path on the command line would be a pattern, and many do not fit.
    listed = await run_git(["ls-tree", "-r", "-t", "-z", commit], shadow, environment=_only(shadow))
    lines = [line for line in listed.stdout.split(b"\0") if not line.startswith(_SUBMODULE)]
    has = {line.partition(b"\t")[2] for line in lines}
    paths = [os.fsencode(path) for path in left_out]
    return Lacking(
        tuple(prefix + shown(path) for path in paths if path in has),
        tuple(prefix + shown(path) for path in paths if path not in has),
    )


def _paths(text: str) -> tuple[str, ...]:
    """What a message names; nothing if it was not written by us."""
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(listed, list):
        return ()
    return tuple(each for each in listed if isinstance(each, str))


def _only(shadow: Path) -> dict[str, str]:
    return {"GIT_DIR": str(shadow)}
