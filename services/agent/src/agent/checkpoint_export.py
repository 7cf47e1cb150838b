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
from dataclasses import dataclass
from pathlib import Path

from agent.bundles import stream_bundle
from agent.checkpoint_record import START, Checkpoint, PartState
from agent.checkpoints import Checkpoints
from agent.clones import RECEIVE_SECONDS, write_stream
from agent.errors import BadRequest, UnknownCommit
from agent.git import git_environment, run_all, run_git
from agent.journal import JOURNAL
from agent.lacking import Lacking
from agent.layout import INCOMING, Layout
from agent.places import Place
from agent.records import COMMIT, EMPTY_TREE
from agent.state_commit import object_environment, put_back_git, read_state, write_state

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
        place = self._checkpoints.places.one(task_id, name)
        environment = object_environment(place)
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
        shadow = self._checkpoints.places.one(task_id, name).reader.shadow
        with tempfile.TemporaryDirectory(dir=shadow.parent, prefix=INCOMING) as incoming:
            path = Path(incoming) / "bundle"
            await write_stream(path, bundle)
            await run_git(
                ["fetch", "--quiet", "--no-write-fetch-head", "--no-tags",
                 "--no-auto-maintenance", str(path), *_REFERENCES],
                shadow, environment={"GIT_DIR": str(shadow)}, timeout=RECEIVE_SECONDS,
            )  # fmt: skip

    async def restore(self, task_id: str, key: str, states: Mapping[str, str]) -> Lacking:
        """Put a task's tree to a checkpoint from elsewhere, given by its state commits.

        Done again after an interruption it comes to the same.

        Returns:
            What of the tree the checkpoint could not carry.

        Raises:
            BadRequest: The states are not those of the task's repositories.
            GitFailed: A commit is missing, or git could not write the tree.
        """
        places = {place.part.name: place for place in self._checkpoints.places.of(task_id)}
        if places.keys() != states.keys():
            raise BadRequest("a checkpoint has one state for each repository of the task")
        read = await run_all(*(read_state(places[name], states[name]) for name in places))
        found = dict(zip(places, read, strict=True))

        async def put_back(place: Place) -> None:
            name = place.part.name
            await put_back_git(place, states[name], found[name][1])

        parts = {name: part for name, (part, _) in found.items()}
        await self._checkpoints.adopt(task_id, Checkpoint(key, parts, came=True), put_back)
        return await self._checkpoints.lacking(task_id)

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
        commit, made = await write_state(place, state, kept)
        start = "" if place.part.start == EMPTY_TREE else place.part.start
        references = await asyncio.to_thread(_references, place)
        return PartExport(place.part.name, start, commit, made, references)


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
