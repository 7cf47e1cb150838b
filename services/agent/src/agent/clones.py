"""The bare clones of a workspace's repositories, filled from bundles."""

import asyncio
import os
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from agent.git import run_git
from agent.layout import Layout

# A bundle brings the mirror's view of the remote; branches a task made itself stay untouched.
REFSPECS = (
    "+refs/heads/*:refs/remotes/origin/*",
    "+refs/tags/*:refs/tags/*",
    "+refs/berth/*:refs/berth/*",
)
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
        """All clones, sorted by name."""
        directory = self._layout.repositories
        if not directory.is_dir():
            return []
        names = sorted(path.name.removesuffix(".git") for path in directory.glob("*.git"))
        return [HeldClone(name, await self._tips(name)) for name in names]

    async def receive(self, name: str, url: str, bundle: AsyncIterator[bytes]) -> None:
        """Fetch a bundle into the clone `name`, made if it is missing.

        Raises:
            GitFailed: The bundle is broken or needs commits the clone lacks.
        """
        clone = self._layout.clone(name)
        clone.parent.mkdir(parents=True, exist_ok=True)
        async with self._locks[name]:
            with tempfile.TemporaryDirectory(dir=clone.parent, prefix=".incoming-") as incoming:
                path = Path(incoming) / "bundle"
                await _write(path, bundle)
                if clone.is_dir():
                    await self._fetch(clone, path)
                else:
                    await self._create(Path(incoming) / "clone.git", clone, url, path)

    async def _create(self, building: Path, clone: Path, url: str, bundle: Path) -> None:
        await run_git(["init", "--quiet", "--bare", str(building)], building.parent)
        (building / "config").write_text(_CONFIG + f'[remote "origin"]\n\turl = {_quoted(url)}\n')
        (building / "config.worktree").write_text("[core]\n\tbare = true\n")
        await self._fetch(building, bundle)
        building.rename(clone)  # a clone is either whole or absent

    async def _fetch(self, clone: Path, bundle: Path) -> None:
        await run_git(
            ["fetch", "--quiet", "--no-write-fetch-head", "--no-tags", str(bundle), *REFSPECS],
            clone,
        )

    async def _tips(self, name: str) -> tuple[str, ...]:
        listed = await run_git(
            ["for-each-ref", "--format=%(objectname)", "refs/remotes/origin", "refs/tags",
             "refs/berth"],
            self._layout.clone(name),
        )  # fmt: skip
        return tuple(dict.fromkeys(listed.text.split()))


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


async def _write(path: Path, chunks: AsyncIterator[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        async for chunk in chunks:
            # Written inline: chunks are small, and the orchestrator sends no faster than this.
            file.write(chunk)
