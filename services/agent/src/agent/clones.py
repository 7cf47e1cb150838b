"""The bare clones of a workspace's repositories, filled from bundles."""

import asyncio
import os
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import GitFailed
from agent.git import run_git
from agent.git_directory import BRANCHES, quoted
from agent.layout import INCOMING, Layout
from agent.worktrees import remove_tree

TAGS = "+refs/tags/*:refs/tags/*"
PINS = "+refs/berth/*:refs/berth/*"
RECEIVE_SECONDS = 1_800.0
_CONFIG = """[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
[gc]
\tauto = 0
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
        config = _CONFIG + f'[remote "origin"]\n\turl = {quoted(url)}\n'
        clone.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=clone.parent, prefix=INCOMING) as incoming:
            path = Path(incoming) / "bundle"
            await write_stream(path, bundle)
            async with self._locks[name]:
                if await self._is_usable(clone, config):
                    await _update(clone, path)
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
            (clone / "config").write_text(config)
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
    # Made by hand, and filled by one fetch: somebody waits for each process that is started here.
    for directory in ("objects", "refs"):
        (building / directory).mkdir(parents=True)
    (building / "HEAD").write_text("ref: refs/heads/main\n")
    (building / "config").write_text(config)
    await _fetch(building, str(incoming / "bundle"), BRANCHES, TAGS, PINS)
    await _pack_references(building)
    if clone.exists():
        clone.rename(incoming / "damaged.git")
    building.rename(clone)  # a clone is either whole or absent


async def _update(clone: Path, bundle: Path) -> None:
    # A bundle names all that the mirror knows of the remote: what it does not name is gone.
    await _fetch(clone, "--prune", str(bundle), BRANCHES, TAGS)
    await _fetch(clone, str(bundle), PINS)  # brings no new objects
    await _pack_references(clone)


async def _fetch(clone: Path, *arguments: str) -> None:
    options = ["--quiet", "--no-write-fetch-head", "--no-tags", "--no-auto-maintenance"]
    await run_git(
        ["fetch", *options, *arguments], clone,
        environment={"GIT_DIR": str(clone)}, timeout=RECEIVE_SECONDS,
    )  # fmt: skip


async def _pack_references(clone: Path) -> None:
    """Each task starts with a copy of the references, and one file is quickly read."""
    packing = ["pack-refs", "--all"]
    # Nothing else depends on it.
    await run_git(packing, clone, environment={"GIT_DIR": str(clone)}, check=False)


def _unlock(clone: Path) -> None:
    """Delete lock files: no git runs yet."""
    for lock in [*clone.glob("*.lock"), *(clone / "refs").rglob("*.lock")]:
        lock.unlink()


async def write_stream(path: Path, chunks: AsyncIterator[bytes]) -> None:
    """Write what comes in to a new file.

    Raises:
        GitFailed: Nothing came.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        async for chunk in chunks:
            # Written inline: chunks are small, and the orchestrator sends no faster than this.
            file.write(chunk)
    if not path.stat().st_size:
        raise GitFailed("the bundle is empty")
