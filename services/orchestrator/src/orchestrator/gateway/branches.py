"""Tasks' work as branches on the repositories' own servers."""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from orchestrator.domain.publication import Base
from orchestrator.gateway.mirrors import GitRepositories, Opened
from orchestrator.gateway.push import BranchPush
from orchestrator.gateway.refs import BRANCHES, Advertisement, full_name
from orchestrator.gateway.scratch import Scratch
from orchestrator.ports import Change, StagedCommit, Target


class GitBranches:
    """Implements `ports.Branches` with git's own commands.

    Args:
        repositories: Has the mirrors.
        data_dir: Scratch repositories lie under `publish/` in it.
        timeout_seconds: Longest time one exchange with a git server may take.
    """

    def __init__(
        self, repositories: GitRepositories, data_dir: Path, timeout_seconds: float
    ) -> None:
        self._repositories = repositories
        self._root = data_dir.absolute() / "publish"
        self._timeout = timeout_seconds
        self._opening = asyncio.Lock()
        self._opened = False

    @asynccontextmanager
    async def staged(self, change: Change) -> AsyncIterator["GitStaged"]:
        """See `ports.Branches.staged`."""
        await self._clear_once()
        opened = {
            target.start.name: await self._repositories.opened(target.url, target.start.commit)
            for target in change.targets
        }
        directory = self._root / f"{secrets.token_hex(8)}.git"
        try:
            scratch = Scratch(self._repositories.git, directory)
            await scratch.make([each.mirror.directory for each in opened.values()])
            commits = [
                StagedCommit(target, commit, base)
                async for target, commit, base in _commits(scratch, change, opened)
            ]
            pushes = {
                each.name: BranchPush(
                    self._repositories.git,
                    directory,
                    opened[each.name],
                    change.branch,
                    each.commit,
                    self._timeout,
                )
                for each in commits
            }
            yield GitStaged(commits, pushes)
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _clear_once(self) -> None:
        """Remove what a killed process left; the data directory is ours alone."""
        async with self._opening:
            if not self._opened:
                await asyncio.to_thread(shutil.rmtree, self._root, ignore_errors=True)
                self._opened = True


class GitStaged:
    """`ports.Staged`."""

    def __init__(self, commits: Sequence[StagedCommit], pushes: dict[str, BranchPush]) -> None:
        self.commits = tuple(commits)
        self._pushes = pushes

    async def check(self, commit: StagedCommit) -> bool:
        """See `ports.Staged`."""
        return await self._pushes[commit.name].check()

    async def push(self, commit: StagedCommit) -> None:
        """See `ports.Staged`."""
        await self._pushes[commit.name].push()

    async def withdraw(self, commit: StagedCommit) -> None:
        """See `ports.Staged`."""
        await self._pushes[commit.name].withdraw()


def base_branch(advertised: Advertisement, ref: str) -> str | None:
    """The full name of the branch the work is based on: what the caller named, else the default."""
    named = full_name(advertised.refs, ref)
    if named is not None and named.startswith(BRANCHES):
        return named
    return advertised.head_ref if advertised.head_ref in advertised.refs else None


async def _commits(
    scratch: Scratch, change: Change, opened: dict[str, Opened]
) -> AsyncIterator[tuple[Target, str, Base | None]]:
    starts = {target.start.name: target.start.commit for target in change.targets}
    trees = await scratch.trees(starts, change.diff)
    for target in change.targets:
        start = target.start
        tree = trees[start.name]
        if tree == await scratch.tree_of(start.commit):
            continue
        commit = await scratch.commit(tree, start.commit, change.message, change.author, change.at)
        base = await _base(scratch, opened[start.name].advertised, target, commit)
        yield target, commit, base


async def _base(
    scratch: Scratch, advertised: Advertisement, target: Target, commit: str
) -> Base | None:
    name = base_branch(advertised, target.start.ref)
    if name is None:
        return None
    tip = advertised.refs[name]
    short = name.removeprefix(BRANCHES)
    if tip == target.start.commit:
        return Base(short)
    return Base(short, moved=True, conflicts=await scratch.conflicts(tip, commit))
