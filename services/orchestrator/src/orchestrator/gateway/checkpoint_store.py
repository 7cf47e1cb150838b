"""Checkpoints in bare repositories of our own, which borrow the history from the mirrors.

What a container sends is hostile until git has checked every object of it. What lies here can be
deleted at any time: it is filled again from object storage.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

import structlog

from orchestrator.errors import BundleRefused, StorageFailure
from orchestrator.gateway.git_command import HARMLESS, MIB
from orchestrator.gateway.git_process import Ended
from orchestrator.gateway.mirrors import GitRepositories
from orchestrator.gateway.refs import is_commit_id
from orchestrator.ports import Origin

log = structlog.get_logger(__name__)

UNPACK_SECONDS = 300.0
LOCAL_SECONDS = 60.0
MAX_PACKS = 256
MAX_HEADER_LINES = 100_000
_SIGNATURE = b"# v2 git bundle\n"
_MAX_LINE = 4_096


class GitCheckpointStore:
    """Implements `ports.CheckpointStore`.

    Args:
        data_dir: The repositories lie under `checkpoints/` in it.
        repositories: The mirrors, and what runs git.
        max_bytes: Largest bundle.
        max_packs: When a workspace has more packs than this, `shed` drops it.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        repositories: GitRepositories,
        max_bytes: int,
        max_packs: int = MAX_PACKS,
    ) -> None:
        self._root = data_dir.absolute() / "checkpoints"
        self._repositories = repositories
        self._git = repositories.git
        self._max_bytes = max_bytes
        self._max_packs = max_packs
        self._ready: set[Origin] = set()

    async def receive(
        self, origin: Origin, bundle: AsyncGenerator[bytes, None], tips: Collection[str], path: Path
    ) -> None:
        """Write a container's bundle to `path` and take its commits in, once they are checked."""
        async with aclosing(bundle):
            await self._write(bundle, path)
        await self._take_in(origin, path, tips)

    async def add(self, origin: Origin, path: Path) -> None:
        """Take in the commits of a stored bundle."""
        await self._take_in(origin, path, ())

    async def held(self, origin: Origin, commits: Collection[str]) -> set[str]:
        """Which of these commits are in."""
        return await self._held(await self._opened(origin), commits)

    async def bundle(
        self, origin: Origin, names: Mapping[str, str], without: Collection[str]
    ) -> AsyncGenerator[bytes, None]:
        """A git bundle of commits by their references' names, without what leads to others."""
        directory = await self._opened(origin)
        lines = [f"{commit} {name}\n" for name, commit in sorted(names.items())]
        yield _SIGNATURE + "".join((*lines, "\n")).encode()
        wanted = [*names.values(), *(f"^{commit}" for commit in without)]
        arguments = ("pack-objects", "--revs", "--stdout", "--thin", "--delta-base-offset", "-q")
        async with self._git.stream(
            *arguments, directory=directory, stdin=("\n".join(wanted) + "\n").encode()
        ) as pack:
            async for chunk in pack.chunks():
                yield chunk
            outcome = await pack.outcome()
        if not outcome.ok:
            raise StorageFailure("Checkpoints cannot be read: check the data directory's disk.")

    async def shed(self, workspace_id: str, *, is_over: bool = False) -> bool:
        """Drop what is kept of a workspace if that has become too much."""
        directory = self._root / workspace_id
        packs = await asyncio.to_thread(lambda: len(list(directory.glob("*/objects/pack/*.pack"))))
        if packs <= (0 if is_over else self._max_packs):
            return False
        await asyncio.to_thread(shutil.rmtree, directory)
        return True

    async def _write(self, bundle: AsyncGenerator[bytes, None], path: Path) -> None:
        size = 0
        with path.open("xb") as file:
            async for chunk in bundle:
                size += len(chunk)
                if size > self._max_bytes:
                    raise BundleRefused(
                        f"The checkpoint takes more than {self._max_bytes // MIB} MiB to store: "
                        "have the task leave out large files, or raise "
                        "BERTH_MAX_REPOSITORY_BYTES.",
                        limit=self._max_bytes,
                    )
                file.write(chunk)

    async def _take_in(self, origin: Origin, path: Path, tips: Collection[str]) -> None:
        directory = await self._opened(origin)
        with path.open("rb") as bundle:
            if not _named(bundle).issuperset(tips):
                raise _refused("it does not name the commits it should bring")
            outcome = await self._git.run(
                "index-pack", "--stdin", "--fix-thin", f"--strict={HARMLESS}",
                f"--max-input-size={self._max_bytes}",
                directory=directory, timeout_seconds=UNPACK_SECONDS, source=bundle,
            )  # fmt: skip
        if not outcome.ok:
            why = outcome.stderr.strip()[-300:] if outcome.ended is Ended.EXITED else outcome.ended
            log.warning("bundle_refused", workspace=origin.workspace_id, said=why)
            raise _refused("git finds its objects broken, incomplete or unsafe")
        if not (await self._held(directory, tips)).issuperset(tips):
            raise _refused("it lacks commits that it names")

    async def _held(self, directory: Path, commits: Collection[str]) -> set[str]:
        if not commits:
            return set()
        outcome = await self._git.run(
            "cat-file", "--batch-check=%(objecttype) %(objectname)", directory=directory,
            stdin="".join(f"{commit}\n" for commit in commits).encode(),
            timeout_seconds=LOCAL_SECONDS, max_output=16 * MIB,
        )  # fmt: skip
        if not outcome.ok:
            raise StorageFailure("Checkpoints cannot be read: check the data directory's disk.")
        pairs = (line.partition(" ") for line in outcome.stdout.decode().splitlines())
        return {name for kind, _, name in pairs if kind == "commit"}

    async def _opened(self, origin: Origin) -> Path:
        """The repository of an origin, made if need be, with the history at hand."""
        directory = self._root / origin.workspace_id / f"{origin.name}.git"
        if not await asyncio.to_thread((directory / "HEAD").is_file):
            await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
            outcome = await self._git.run(
                "init", "--quiet", "--bare", "--template=",
                directory=directory, timeout_seconds=LOCAL_SECONDS,
            )  # fmt: skip
            if not outcome.ok:
                raise StorageFailure("Checkpoints cannot be kept: check the data directory's disk.")
            self._ready.discard(origin)
        if origin in self._ready:
            return directory
        if origin.url is not None and origin.start is not None:
            await self._repositories.ensure(origin.url, origin.start)
            objects = await self._repositories.objects(origin.url)
            alternates = directory / "objects" / "info" / "alternates"
            await asyncio.to_thread(_write_once, alternates, f"{objects}\n")
        self._ready.add(origin)
        return directory


def _named(bundle: BinaryIO) -> set[str]:
    """The commits that a bundle names; the file then stands at its pack.

    Raises:
        BundleRefused: It is no bundle of ours.
    """
    if bundle.readline(_MAX_LINE) != _SIGNATURE:
        raise _refused("it is no git bundle")
    named: set[str] = set()
    for _ in range(MAX_HEADER_LINES):
        line = bundle.readline(_MAX_LINE)
        if line == b"\n":
            # Git reads from the descriptor, which is further than what we have read.
            os.lseek(bundle.fileno(), bundle.tell(), os.SEEK_SET)
            return named
        commit, _, name = line.decode(errors="replace").partition(" ")
        if not is_commit_id(commit) or not name.endswith("\n"):
            break
        named.add(commit)
    raise _refused("its list of names is broken")


def _write_once(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _refused(why: str) -> BundleRefused:
    return BundleRefused(
        f"A container handed out checkpoints that are not kept: {why}. The task goes on; if its "
        "container is lost, its newest work is lost too."
    )
