"""Checkpoints on their way out of the container, and back into one that has none.

What leaves is git: the commits of the checkpoints, and for the newest a *state* commit that leads
to all the rest: the checkpoint, the commit the task's own HEAD is at, the tree of the task's index,
and a record of what no commit says. One bundle carries them, without what its receiver has.

What does not leave: configuration, hooks, other branches, tags and stash of the task's repository,
a merge under way, and an index with conflicts.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.bundles import stream_bundle
from agent.checkpoint_record import START, Checkpoint, PartState
from agent.checkpoints import AUTHOR, Checkpoints, Place
from agent.clones import RECEIVE_SECONDS, write_stream
from agent.errors import BadRequest, StorageFailed, UnknownCommit
from agent.git import git_environment, run_all, run_git
from agent.git_directory import is_git_directory
from agent.journal import JOURNAL
from agent.layout import INCOMING, Layout
from agent.records import COMMIT, EMPTY_TREE
from agent.worktree_state import Branch

RECORD = "record.json"
INDEX = "index"
# The same state is the same commit, whenever it is asked for.
_DATED = {"GIT_AUTHOR_DATE": "@0 +0000", "GIT_COMMITTER_DATE": "@0 +0000"}
_REFERENCES = ("+refs/berth/*:refs/berth/*", "+refs/berth-states/*:refs/berth-states/*")


@dataclass(frozen=True, slots=True)
class PartExport:
    """One repository of a task, ready to leave.

    Args:
        name: The repository's name.
        start: The commit it started from; empty for a scratch task.
        commit: The newest checkpoint.
        state: The commit that leads to all of the newest checkpoint.
        checkpoints: Commits by key, for each call that changed the tree.
    """

    name: str
    start: str
    commit: str
    state: str
    checkpoints: dict[str, str]


@dataclass(frozen=True, slots=True)
class TaskExport:
    """A task's checkpoints, as they are now.

    Args:
        prepared: Whether the task has a tree here at all.
        key: Of the newest checkpoint; empty before the first mutating call.
        failed: Why there is no checkpoint after that call; then `parts` is empty.
        ended: Keys of the calls that would be answered from the journal.
        parts: The repositories; empty as long as there is no checkpoint after a call.
    """

    prepared: bool
    key: str = START
    failed: str = ""
    ended: tuple[str, ...] = ()
    parts: tuple[PartExport, ...] = ()


@dataclass(frozen=True, slots=True)
class _State:
    """What a state commit says beside its trees."""

    commit: str
    head: str
    branch: Branch | None
    left_out: tuple[str, ...]
    empty: tuple[str, ...]

    @classmethod
    def from_json(cls, text: str) -> "_State":
        try:
            data: dict[str, Any] = json.loads(text)
            branch = None if data["branch"] is None else Branch(**data["branch"])
            left_out, empty = tuple(data["left_out"]), tuple(data["empty"])
            return cls(data["commit"], data["head"], branch, left_out, empty)
        except (ValueError, LookupError, TypeError):
            raise StorageFailed("the record of the checkpoint is damaged") from None


class CheckpointExport:
    """Tells of checkpoints, hands them out and takes them back."""

    def __init__(self, layout: Layout, checkpoints: Checkpoints) -> None:
        self._layout = layout
        self._checkpoints = checkpoints
        self._ended: dict[str, set[str]] = {}
        self._made: dict[str, tuple[Checkpoint, tuple[PartExport, ...]]] = {}

    def is_prepared(self, task_id: str) -> bool:
        """Whether a task has a tree here."""
        return (self._layout.record(task_id) / "task.json").exists()

    async def tell(self, task_id: str) -> TaskExport:
        """What there is of a task's checkpoints; one that is being made is waited for.

        Raises:
            GitFailed: The newest cannot be made ready to leave.
            StorageFailed: What is known of the task is damaged.
        """
        if not self.is_prepared(task_id):
            return TaskExport(prepared=False)
        room = Path(tempfile.mkdtemp(dir=self._layout.record(task_id), prefix=INCOMING))
        try:
            last, places = await self._checkpoints.copied(task_id, room)
            parts = await self._parts(task_id, last, places, room)
        finally:
            await asyncio.to_thread(shutil.rmtree, room)
        ended = self._ended.setdefault(task_id, set())
        await asyncio.to_thread(_add_ended, self._layout.record(task_id), ended)
        return TaskExport(
            prepared=True, key=last.key, failed=last.failed, ended=tuple(sorted(ended)), parts=parts
        )

    async def bundle(
        self, task_id: str, name: str, tips: Sequence[str], without: Sequence[str]
    ) -> AsyncIterator[bytes]:
        """A bundle of commits of one repository, without others and what leads to them.

        Raises:
            UnknownCommit: One of them is not here.
        """
        place = self._checkpoints.place(task_id, name)
        environment = _environment(place)
        asked = "".join(f"{commit}^{{commit}}\n" for commit in (*tips, *without))
        told = await run_git(
            ["cat-file", "--batch-check=%(objecttype)"], place.reader.shadow,
            environment=environment, stdin=asked.encode(),
        )  # fmt: skip
        if any(line != "commit" for line in told.text.splitlines()):
            raise UnknownCommit(f"a commit that was asked for is not in {name}")
        return stream_bundle(place.reader.shadow, git_environment(environment), tips, without)

    async def receive(self, task_id: str, name: str, bundle: AsyncIterator[bytes]) -> None:
        """Take in commits of one repository of a prepared task.

        Raises:
            GitFailed: The bundle is broken, or needs commits that are not here.
            UnknownTask: The task has no tree.
        """
        shadow = self._checkpoints.place(task_id, name).reader.shadow
        with tempfile.TemporaryDirectory(dir=shadow.parent, prefix=INCOMING) as incoming:
            path = Path(incoming) / "bundle"
            await write_stream(path, bundle)
            await run_git(
                ["fetch", "--quiet", "--no-write-fetch-head", "--no-tags",
                 "--no-auto-maintenance", str(path), *_REFERENCES],
                shadow, environment={"GIT_DIR": str(shadow)}, timeout=RECEIVE_SECONDS,
            )  # fmt: skip

    async def restore(self, task_id: str, key: str, states: Mapping[str, str]) -> None:
        """Put a task's tree to a checkpoint from elsewhere, given by its state commits.

        Done again after an interruption it comes to the same.

        Raises:
            BadRequest: The states are not those of the task's repositories.
            GitFailed: A commit is missing, or git could not write the tree.
        """
        places = {place.part.name: place for place in self._checkpoints.places(task_id)}
        if places.keys() != states.keys():
            raise BadRequest("a checkpoint has one state for each repository of the task")
        read = await run_all(*(self._read(places[name], states[name]) for name in places))
        found = dict(zip(places, read, strict=True))

        async def put_back_git(place: Place) -> None:
            name = place.part.name
            await _put_back_git(place, states[name], found[name][1])

        target = Checkpoint(key, {name: part for name, (part, _) in found.items()})
        await self._checkpoints.adopt(task_id, target, put_back_git)

    async def _parts(
        self, task_id: str, last: Checkpoint, places: Sequence[Place], room: Path
    ) -> tuple[PartExport, ...]:
        if last.key == START or last.failed:
            return ()
        made = self._made.get(task_id)
        if made is None or made[0] != last:
            ready = (
                self._part(place, last.parts[place.part.name], room / place.part.name)
                for place in places
            )
            made = last, tuple(await run_all(*ready))
            self._made[task_id] = made
        return made[1]

    async def _part(self, place: Place, state: PartState, kept: Path) -> PartExport:
        git = _Git(place)
        commit = state.commit
        if commit == EMPTY_TREE:
            await git("hash-object", "-t", "tree", "-w", "--stdin", stdin=b"")
            commit = await git("commit-tree", EMPTY_TREE, "-m", "Nothing yet")
        head = await _head(git, kept, state.branch)
        record = _State(commit, head, state.branch, state.left_out, state.empty)
        blob = await git("hash-object", "-w", "--stdin", stdin=json.dumps(asdict(record)).encode())
        entries = f"100644 blob {blob}\t{RECORD}\n"
        index = await _index_tree(git, kept / INDEX)
        if index:
            entries += f"040000 tree {index}\t{INDEX}\n"
        tree = await git("mktree", stdin=entries.encode())
        parents = [part for each in dict.fromkeys((commit, head)) if each for part in ("-p", each)]
        made = await git("commit-tree", tree, *parents, "-m", "State")
        start = "" if place.part.start == EMPTY_TREE else place.part.start
        references = await asyncio.to_thread(_references, place)
        return PartExport(place.part.name, start, commit, made, references)

    async def _read(self, place: Place, commit: str) -> tuple[PartState, _State]:
        git = _Git(place)
        state = _State.from_json(await git("cat-file", "blob", f"{commit}:{RECORD}"))
        tree = await git("rev-parse", "--verify", f"{state.commit}^{{tree}}")
        # The branch is put back with the rest of git's state.
        return PartState(state.commit, tree, None, state.left_out, state.empty), state


class _Git:
    """Git with the objects of one repository's checkpoints and of the task itself."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._environment = _environment(place) | AUTHOR | _DATED

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


def _environment(place: Place) -> dict[str, str]:
    environment = {"GIT_DIR": str(place.reader.shadow)}
    if place.private is not None:
        environment["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(place.private / "objects")
    return environment


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


async def _put_back_git(place: Place, commit: str, state: _State) -> None:
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


def _add_ended(record: Path, ended: set[str]) -> None:
    """Add the keys of the calls whose journal entry has a result: once there, it stays."""
    for path in (record / JOURNAL).glob("*.json"):
        if path.stem in ended:
            continue
        try:
            if json.loads(path.read_bytes())["result"] is not None:
                ended.add(path.stem)
        except (ValueError, LookupError, TypeError):
            continue  # damaged: such a call is done again


def _references(place: Place) -> dict[str, str]:
    """The checkpoints' commits by key."""
    directory = place.reader.shadow / "refs" / "berth" / place.task
    if not directory.is_dir():
        return {}
    found = {
        each.name: each.read_text(errors="replace").strip()
        for each in directory.iterdir()
        if each.is_file() and each.name.isdigit()
    }
    return {key: commit for key, commit in found.items() if COMMIT.fullmatch(commit)}
