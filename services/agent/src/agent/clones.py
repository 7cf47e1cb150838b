"""The bare clones of a workspace's repositories, filled from bundles."""

import asyncio
import os
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import BadRequest, GitFailed
from agent.git import run_git
from agent.layout import INCOMING, Layout
from agent.worktrees import remove_tree

# A bundle names all that the mirror knows of the remote, so a branch that it does not name is
# gone. Branches and tags that a task made stay untouched: the mirror's branches lie elsewhere.
BRANCHES = "+refs/heads/*:refs/remotes/origin/*"
TAGS = "+refs/tags/*:refs/tags/*"
PINS = "+refs/berth/*:refs/berth/*"
RECEIVE_SECONDS = 1_800.0
MAX_URL_LENGTH = 2_048
# Worktrees have configuration of their own, so that each task can ignore its own files; then
# `bare` must belong to the clone alone.
_CONFIG = """[core]
\trepositoryformatversion = 1
\tfilemode = true
[extensions]
\tworktreeConfig = true
[user]
\tname = Berth
\temail = berth@localhost
"""
# Printing the type makes git look whether the object is there.
_TIPS = ("for-each-ref", "--format=%(objectname) %(objecttype)",
         "refs/remotes/origin", "refs/tags", "refs/berth")  # fmt: skip


@dataclass(frozen=True, slots=True)
class HeldClone:
    """A clone and the commits its remote references point at."""

    name: str
    tips: tuple[str, ...]


class Clones:
    """Makes clones and brings them up to date."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def held(self) -> list[HeldClone]:
        """All clones that can be used, sorted by name."""
        directory = self._layout.repositories
        if not directory.is_dir():
            return []
        held = []
        for path in sorted(directory.glob("*.git")):
            tips = await self._tips(path)
            if tips is not None:
                held.append(HeldClone(path.name.removesuffix(".git"), tips))
        return held

    async def receive(self, name: str, url: str, bundle: AsyncIterator[bytes]) -> None:
        """Fetch a bundle into the clone `name`, made if it is missing or damaged.

        Raises:
            BadRequest: The name or the address is none.
            GitFailed: The bundle is broken or needs commits the clone lacks.
        """
        clone = self._layout.clone(name)
        config = _CONFIG + f'[remote "origin"]\n\turl = {_quoted(url)}\n'
        clone.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=clone.parent, prefix=INCOMING) as incoming:
            path = Path(incoming) / "bundle"
            await _write(path, bundle)
            async with self._locks[name]:
                if await self._is_usable(clone, config):
                    await _fetch(clone, path)
                else:
                    await _create(Path(incoming), clone, config)

    async def clear_interrupted(self) -> None:
        """Remove what a killed worker left; to be called before anything is received."""
        directory = self._layout.repositories
        if not directory.is_dir():
            return
        for rest in list(directory.glob(f"{INCOMING}*")):
            await asyncio.to_thread(remove_tree, rest)
        for clone in list(directory.glob("*.git")):
            await asyncio.to_thread(_unlock, clone)

    async def _is_usable(self, clone: Path, config: str) -> bool:
        if not clone.is_dir():
            return False
        if await self._tips(clone) is None:
            # A task has all rights in here; often it is only the configuration that it broke.
            _configure(clone, config)
        return await self._tips(clone) is not None

    async def _tips(self, clone: Path) -> tuple[str, ...] | None:
        """The commits a clone's remote references point at; None if it is missing or damaged."""
        if not clone.is_dir():
            return None
        listed = await run_git(_TIPS, clone, environment={"GIT_DIR": str(clone)}, check=False)
        if listed.code != 0:
            return None
        return tuple(dict.fromkeys(line.split(" ")[0] for line in listed.text.splitlines()))


async def _create(incoming: Path, clone: Path, config: str) -> None:
    building = incoming / "clone.git"
    arguments = ["init", "--quiet", "--bare", "--template=", "--initial-branch=main"]
    await run_git([*arguments, str(building)], incoming)
    _configure(building, config)
    await _fetch(building, incoming / "bundle")
    if clone.exists():
        if (clone / "worktrees").is_dir():
            (clone / "worktrees").rename(building / "worktrees")
        clone.rename(incoming / "damaged.git")
    building.rename(clone)  # a clone is either whole or absent


def _configure(clone: Path, config: str) -> None:
    (clone / "config").write_text(config)
    (clone / "config.worktree").write_text("[core]\n\tbare = true\n")


async def _fetch(clone: Path, bundle: Path) -> None:
    options = ["--quiet", "--no-write-fetch-head", "--no-tags", "--no-auto-maintenance"]
    environment = {"GIT_DIR": str(clone)}
    common = ["fetch", *options]

    async def fetch(*arguments: str, check: bool = True) -> int:
        output = await run_git(
            [*common, *arguments], clone,
            environment=environment, check=check, timeout=RECEIVE_SECONDS,
        )  # fmt: skip
        return output.code

    await fetch("--prune", str(bundle), BRANCHES)
    # Brings no new objects. Without pruning, so that a task's own tags stay, unless one of them
    # is in the way of the remote's, as `v1` is of `v1/first`.
    if await fetch(str(bundle), TAGS, PINS, check=False) != 0:
        await fetch("--prune", str(bundle), TAGS)
        await fetch(str(bundle), PINS)


def _unlock(clone: Path) -> None:
    """Delete lock files: no git runs yet."""
    for lock in [*clone.glob("*.lock"), *(clone / "refs").rglob("*.lock")]:
        lock.unlink()


def _quoted(value: str) -> str:
    """A value for git's configuration.

    Raises:
        BadRequest: It cannot be one.
    """
    if len(value) > MAX_URL_LENGTH or any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise BadRequest("not an address of a repository")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


async def _write(path: Path, chunks: AsyncIterator[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        async for chunk in chunks:
            # Written inline: chunks are small, and the orchestrator sends no faster than this.
            file.write(chunk)
    if not path.stat().st_size:
        raise GitFailed("the bundle is empty")
