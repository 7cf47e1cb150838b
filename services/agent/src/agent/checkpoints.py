"""The states of a task's tree between its calls, as commits that nobody sees.

After each call that may have changed something, each repository's tree becomes a commit on
`refs/berth/<task>/<key>` if it differs from the commit before. Ignored files, placed files and what
came with the dependencies stay out, as they stay out of the patch. References and new objects lie
in the task's private git directory and not in the clone: there no tool can reach them by git's own
means, and neither the user's references, history, stash and index nor fetching, pruning and
collecting garbage have to do with them.

An index of its own follows the tree, so that a checkpoint reads only what changed since the last.

What is put back: content, executable bits, links and deletions of tracked and untracked files,
empty directories, and git's state of the worktree (HEAD, index, a merge under way, configuration,
the branch it is on). If an interrupted call destroyed the tree's git directory, it is made anew as
it was at the start: what the task had committed is then a change that is not committed.

What stays as an interrupted call left it: ignored files, other branches, tags and the stash, the
insides of submodules and nested repositories, untracked files that are too large, and files at the
top of a task with several repositories. Line endings follow
the tree's attributes, as in any checkout.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from agent.checkpoint_record import START, Checkpoint, History
from agent.errors import StorageFailed
from agent.git import run_all
from agent.lacking import Lacking, together
from agent.layout import Layout
from agent.part_states import PartStates
from agent.places import Place, Places
from agent.trees import Trees


class Checkpoints:
    """Keeps and puts back the trees of tasks."""

    def __init__(self, layout: Layout, trees: Trees) -> None:
        self._layout = layout
        self._states = PartStates(layout)
        self.places = Places(layout, trees)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def begin(self, task_id: str) -> str:
        """Have a checkpoint to go back to, at least the start; returns the key of the newest.

        Raises:
            UnknownTask: The task has no tree.
            StorageFailed: What is known of its checkpoints is damaged.
        """
        async with self._locks[task_id]:
            return (await self._history(task_id)).last.key

    async def add(self, task_id: str, key: str) -> None:
        """Make a checkpoint of what the call of this key has left.

        Raises:
            GitFailed: Git could not read the tree.
            StorageFailed: What is known of the task's checkpoints is damaged.
        """
        async with self._locks[task_id]:
            history = await self._history(task_id)
            last = history.last
            places = self.places.of(task_id)
            states = await run_all(
                *(self._states.added(place, last.parts[place.part.name], key) for place in places)
            )
            parts = {place.part.name: state for place, state in zip(places, states, strict=True)}
            previous = history.before(key)
            await asyncio.to_thread(self._save, task_id, History(Checkpoint(key, parts), previous))

    @asynccontextmanager
    async def held(self, task_id: str) -> AsyncIterator[History]:
        """What is known of a task's checkpoints, which stay as they are inside the block.

        Raises:
            UnknownTask: The task has no tree.
            StorageFailed: What is known of its checkpoints is damaged.
        """
        async with self._locks[task_id]:
            yield await self._history(task_id)

    async def give_up(self, task_id: str, key: str, why: str) -> None:
        """Note that there is no checkpoint after a call, so that nobody goes back to before it."""
        async with self._locks[task_id]:
            history = await self._history(task_id)
            failed = replace(history.last, key=key, failed=why)
            await asyncio.to_thread(self._save, task_id, History(failed, history.before(key)))

    async def restore(self, task_id: str, key: str) -> Lacking:
        """Put a task's tree back to what it was before the interrupted call of this key.

        Returns:
            What could not be put back.

        Raises:
            GitFailed: Git could not write the tree.
            StorageFailed: There is no checkpoint to go back to.
        """
        async with self._locks[task_id]:
            target = (await self._history(task_id)).before(key)
            if target.failed:
                raise StorageFailed(
                    "the call was interrupted, and the tree cannot be put back to what it was "
                    f"before: {target.failed}"
                )
            lacking = await run_all(
                *(
                    self._states.restored(place, target, target.parts[place.part.name])
                    for place in self.places.of(task_id)
                )
            )
            await asyncio.to_thread(self._save, task_id, History(target))
            return together(lacking)

    async def lacking(self, task_id: str) -> Lacking:
        """What a task's tree lacks that was put to a checkpoint from elsewhere; nothing since then.

        Raises:
            UnknownTask: The task has no tree.
            GitFailed: Git could not read the checkpoint.
            StorageFailed: What is known of the task's checkpoints is damaged.
        """
        async with self._locks[task_id]:
            known = await asyncio.to_thread(History.load, self._layout.record(task_id))
            if known is None or not known.last.came:
                return Lacking()
            parts = known.last.parts
            return together(
                await run_all(
                    *(
                        self._states.lacking(each, parts[each.part.name])
                        for each in self.places.of(task_id)
                    )
                )
            )

    async def copied(self, task_id: str, room: Path) -> tuple[Checkpoint, list[Place]]:
        """The newest checkpoint, with git's state of its worktrees copied to `room/<name>`.

        One that is being made is waited for. The next may be made as soon as this returns.
        """
        async with self._locks[task_id]:
            last = (await self._history(task_id)).last
            places = self.places.of(task_id)
            for place in places:
                await self._states.copied(place, last.state, room / place.part.name)
            return last, places

    async def adopt(
        self, task_id: str, target: Checkpoint, rest: Callable[[Place], Awaitable[None]]
    ) -> None:
        """Put a tree to a checkpoint that was made elsewhere, and have it as the newest.

        It is recorded last, so that an interruption shows.

        Args:
            task_id: The task.
            target: What the tree is to be; its commits must be here.
            rest: Puts back what is not files.
        """
        async with self._locks[task_id]:
            await self._history(task_id)
            places = self.places.of(task_id)
            parts = target.parts
            await run_all(
                *(self._states.restored(each, target, parts[each.part.name]) for each in places)
            )
            await run_all(*(rest(each) for each in places))
            branches = await run_all(
                *(self._states.keep_git(each, target.state) for each in places)
            )
            settled = {
                each.part.name: replace(parts[each.part.name], branch=branch)
                for each, branch in zip(places, branches, strict=True)
            }
            history = History(replace(target, parts=settled))
            await asyncio.to_thread(self._save, task_id, history)

    async def _history(self, task_id: str) -> History:
        found = await asyncio.to_thread(History.load, self._layout.record(task_id))
        if found is None:
            places = self.places.of(task_id)
            states = await run_all(*(self._states.at_start(place) for place in places))
            parts = {place.part.name: state for place, state in zip(places, states, strict=True)}
            found = History(Checkpoint(START, parts))
            await asyncio.to_thread(self._save, task_id, found)
        return found

    def _save(self, task_id: str, history: History) -> None:
        history.save(self._layout.record(task_id))
        needed = {each.state for each in (history.last, history.previous) if each is not None}
        self._states.forget_others(task_id, needed)
