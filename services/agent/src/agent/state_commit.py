"""The commit that leads to all of one repository's part in a checkpoint.

It leads to the checkpoint, the commit the task's own HEAD is at, the tree of the task's index, and
a record of what no commit says.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from agent.checkpoint_record import PartState
from agent.errors import StorageFailed
from agent.git import run_git
from agent.git_directory import is_git_directory
from agent.places import AUTHOR, Place
from agent.records import COMMIT, EMPTY_TREE
from agent.worktree_state import Branch

RECORD = "record.json"
INDEX = "index"
# The same state is the same commit, whenever it is asked for.
_DATED = {"GIT_AUTHOR_DATE": "@0 +0000", "GIT_COMMITTER_DATE": "@0 +0000"}


@dataclass(frozen=True, slots=True)
class StateRecord:
    """What a state commit says beside its trees."""

    commit: str
    head: str
    branch: Branch | None
    left_out: tuple[str, ...]
    empty: tuple[str, ...]

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what a state commit has.

        Raises:
            StorageFailed: It is damaged.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            branch = None if data["branch"] is None else Branch(**data["branch"])
            left_out, empty = tuple(data["left_out"]), tuple(data["empty"])
            return cls(data["commit"], data["head"], branch, left_out, empty)
        except (ValueError, LookupError, TypeError):
            raise StorageFailed("the record of the checkpoint is damaged") from None


async def write_state(place: Place, state: PartState, kept: Path) -> tuple[str, str]:
    """Make the state commit of a repository's part in a checkpoint.

    Args:
        place: The repository.
        state: Its part in the checkpoint.
        kept: Where git's state of its worktree then is.

    Returns:
        The checkpoint's own commit and the state commit.

    Raises:
        GitFailed: Git could not write it.
    """
    git = _Git(place)
    commit = state.commit
    if commit == EMPTY_TREE:
        await git("hash-object", "-t", "tree", "-w", "--stdin", stdin=b"")
        commit = await git("commit-tree", EMPTY_TREE, "-m", "Nothing yet")
    head = await _head(git, kept, state.branch)
    record = StateRecord(commit, head, state.branch, state.left_out, state.empty)
    blob = await git("hash-object", "-w", "--stdin", stdin=json.dumps(asdict(record)).encode())
    entries = f"100644 blob {blob}\t{RECORD}\n"
    index = await _index_tree(git, kept / INDEX)
    if index:
        entries += f"040000 tree {index}\t{INDEX}\n"
    tree = await git("mktree", stdin=entries.encode())
    parents = [part for each in dict.fromkeys((commit, head)) if each for part in ("-p", each)]
    made = await git("commit-tree", tree, *parents, "-m", "State")
    return commit, made


async def read_state(place: Place, commit: str) -> tuple[PartState, StateRecord]:
    """What a state commit leads to.

    Raises:
        GitFailed: It is not here.
        StorageFailed: Its record is damaged.
    """
    git = _Git(place)
    state = StateRecord.from_json(await git("cat-file", "blob", f"{commit}:{RECORD}"))
    tree = await git("rev-parse", "--verify", f"{state.commit}^{{tree}}")
    # The branch is put back with the rest of git's state.
    return PartState(state.commit, tree, None, state.left_out, state.empty), state


async def put_back_git(place: Place, commit: str, state: StateRecord) -> None:
    """Give a worktree's own git its HEAD, its branch, its index and the commits behind them."""
    private = place.private
    if private is None or not is_git_directory(private) or not state.head:
        return
    git = _Git(place)
    index = await git.tried("rev-parse", "--verify", "--quiet", f"{commit}:{INDEX}")
    wanted = "".join(f"{each}\n" for each in (state.head, index, f"^{place.part.start}") if each)
    pack = private / "objects" / "pack" / "pack"
    pack.parent.mkdir(exist_ok=True)
    await git("pack-objects", "--revs", "-q", str(pack), stdin=wanted.encode())
    own = {"GIT_DIR": str(private), "GIT_WORK_TREE": str(place.reader.worktree)}

    async def run(*arguments: str, check: bool = True) -> None:
        await run_git(arguments, place.reader.worktree, environment=own, check=check)

    if state.branch is None:
        await run("update-ref", "--no-deref", "HEAD", state.head)
    else:
        await run("update-ref", state.branch.name, state.head)
        await run("symbolic-ref", "HEAD", state.branch.name)
    if index:
        await run("read-tree", index)
        # Its exit code says only whether files differ from the index.
        await run("update-index", "-q", "--refresh", check=False)


def object_environment(place: Place) -> dict[str, str]:
    """What has git see the objects of a repository's checkpoints and of the task itself."""
    environment = {"GIT_DIR": str(place.reader.shadow)}
    if place.private is not None:
        environment["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(place.private / "objects")
    return environment


class _Git:
    """Git with the objects of one repository's checkpoints and of the task itself."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._environment = object_environment(place) | AUTHOR | _DATED

    async def __call__(self, *arguments: str, stdin: bytes | None = None) -> str:
        return (await self._run(arguments, stdin, check=True)) or ""

    async def tried(self, *arguments: str, index: Path | None = None) -> str | None:
        """What git says; None if it fails."""
        return await self._run(arguments, None, check=False, index=index)

    async def _run(
        self,
        arguments: Sequence[str],
        stdin: bytes | None,
        *,
        check: bool,
        index: Path | None = None,
    ) -> str | None:
        extra = {} if index is None else {"GIT_INDEX_FILE": str(index)}
        shadow = self.place.reader.shadow
        done = await run_git(
            arguments, shadow, environment=self._environment | extra, stdin=stdin, check=check
        )
        return done.text if done.code == 0 else None


async def _head(git: _Git, kept: Path, branch: Branch | None) -> str:
    """The commit that the task's HEAD is at, if it is here; else nothing."""
    commit = "" if branch is None else branch.commit
    if branch is None and (kept / "HEAD").is_file():
        commit = (kept / "HEAD").read_text(errors="replace").strip()
    if not COMMIT.fullmatch(commit):
        return ""
    found = await git.tried("cat-file", "-e", f"{commit}^{{commit}}")
    return "" if found is None else commit


async def _index_tree(git: _Git, index: Path) -> str:
    """The tree of the task's index; nothing if it has none that makes a tree."""
    if not index.is_file():
        return ""
    return await git.tried("write-tree", index=index) or ""
