"""One bare mirror of a repository on disk."""

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from orchestrator.errors import BerthError, RepositoryError, RepositoryTooLarge, StorageFailure
from orchestrator.gateway.address import Remote
from orchestrator.gateway.failures import failure, is_missing, is_redirect, is_shallow
from orchestrator.gateway.git_command import MIB, Git
from orchestrator.gateway.git_process import Ended, GitOutcome
from orchestrator.gateway.refs import (
    BRANCHES,
    LISTING_FORMAT,
    PINNED,
    TAGS,
    Advertisement,
    Ref,
    is_commit_id,
    parse_advertisement,
    parse_listing,
)

LOCAL_SECONDS = 60.0
MAX_ADVERTISEMENT_BYTES = 64 * MIB
WATCH_SECONDS = 0.1
NEW_SUFFIX = ".new"

_EVERYTHING = (f"+{BRANCHES}*:{BRANCHES}*", f"+{TAGS}*:{TAGS}*")
_NOTHING: Mapping[str, Ref] = MappingProxyType({})


class Mirror:
    """A mirror that may not exist yet.

    Nothing in it is ever pruned or collected, so that what was resolved once stays readable.
    `lock` is held by whoever loads, lists or fetches; what only reads the mirror needs it not.

    Args:
        git: Runs the commands.
        directory: Where the mirror lies or will lie.
        max_bytes: Most that it may take on disk.
        timeout_seconds: Longest time one exchange with the remote may take.
    """

    def __init__(self, git: Git, directory: Path, max_bytes: int, timeout_seconds: float) -> None:
        self.directory = directory
        self.lock = asyncio.Lock()
        self.refs: Mapping[str, Ref] = _NOTHING
        self.listings_begun = 0
        self.listing: Advertisement | BerthError | None = None
        self._git = git
        self._max_bytes = max_bytes
        self._timeout = timeout_seconds
        self._suffix = ""
        self.loaded = False
        self._exists = False

    async def load(self) -> None:
        """Read what is on disk, once; a mirror that git cannot read is discarded."""
        if self.loaded:
            return
        if await asyncio.to_thread(self.directory.is_dir):
            await asyncio.to_thread(remove_leftovers, self.directory)
            self._exists = await self._read_refs(self.directory)
            if not self._exists:
                await asyncio.to_thread(shutil.rmtree, self.directory)
        self.loaded = True

    async def list(self, remote: Remote) -> Advertisement:
        """What the remote has now.

        Raises:
            RepositoryError: It cannot be read.
        """
        self.listings_begun += 1
        self.listing = None
        try:
            self.listing = await self._list(remote)
        except BerthError as error:
            self.listing = error
            raise
        return self.listing

    async def fetch(self, remote: Remote) -> None:
        """Bring all branches and tags up to date, creating the mirror if need be.

        A first fetch that fails leaves nothing behind.

        Raises:
            RepositoryError: It cannot be read, is too large, or is broken.
        """
        everything = ("--prune", "--", self.location(remote), *_EVERYTHING)
        if self._exists:
            await self._fetch_into(self.directory, remote, *everything)
            return
        fresh = self.directory.with_suffix(f".{os.getpid()}{NEW_SUFFIX}")
        try:
            await self._initialize(fresh)
            await self._fetch_into(fresh, remote, *everything)
            await asyncio.to_thread(fresh.replace, self.directory)
            self._exists = True
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)

    def location(self, remote: Remote) -> str:
        """The remote's address in the spelling its server answers to."""
        return remote.location + self._suffix

    async def fetch_commit(self, remote: Remote, commit: str) -> None:
        """Fetch one commit that no branch or tag leads to, and keep it.

        Raises:
            RepositoryError: The remote does not hand it out.
        """
        refspec = f"+{commit}:{PINNED}{commit}"
        await self._fetch_into(self.directory, remote, "--", self.location(remote), refspec)

    async def commit_of(self, name: str) -> str | None:
        """The commit that an object id, full or abbreviated, stands for in this mirror."""
        outcome = await self._local("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return outcome.stdout.decode().strip() if outcome.ok else None

    async def commits_among(self, names: Sequence[str]) -> set[str]:
        """The commits in this mirror that these full object ids stand for."""
        asked = [f"{name}^{{commit}}" for name in names if is_commit_id(name)]
        if not asked or not self._exists:
            return set()
        outcome = await self._local(
            "cat-file", "--batch-check=%(objecttype) %(objectname)", stdin="\n".join(asked) + "\n"
        )
        if not outcome.ok:
            raise StorageFailure("A mirror cannot be read: check the data directory's disk.")
        pairs = (line.partition(" ") for line in outcome.stdout.decode().splitlines())
        return {name for kind, _, name in pairs if kind == "commit"}

    async def _list(self, remote: Remote) -> Advertisement:
        outcome = await self._ask(remote, self._suffix)
        if remote.scheme in ("https", "http") and (is_redirect(outcome) or is_missing(outcome)):
            # Servers differ in whether `.git` belongs to the address: GitLab redirects without.
            other = "" if self._suffix else ".git"
            second = await self._ask(remote, other)
            if not is_missing(second):
                self._suffix, outcome = other, second
        if not outcome.ok:
            raise failure(outcome, remote.url, known=bool(remote.access))
        return parse_advertisement(outcome.stdout)

    async def _ask(self, remote: Remote, suffix: str) -> GitOutcome:
        return await self._git.run(
            *pinned(remote),
            "ls-remote",
            "--quiet",
            "--symref",
            "--",
            remote.location + suffix,
            timeout_seconds=self._timeout,
            protocol=remote.scheme,
            access=remote.access,
            max_output=MAX_ADVERTISEMENT_BYTES,
        )

    async def _initialize(self, directory: Path) -> None:
        await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
        outcome = await self._git.run(
            "init",
            "--quiet",
            "--bare",
            "--template=",
            "--initial-branch=main",
            directory=directory,
            timeout_seconds=LOCAL_SECONDS,
        )
        if not outcome.ok:
            raise StorageFailure("A mirror could not be created: check the data directory's disk.")

    async def _fetch_into(self, directory: Path, remote: Remote, *arguments: str) -> None:
        too_large = RepositoryTooLarge(
            f"The repository takes more than {self._max_bytes // MIB} MiB: use a smaller one or "
            "raise BERTH_MAX_REPOSITORY_BYTES.",
            limit=self._max_bytes,
        )
        outcome = await self._git.run(
            *pinned(remote),
            "fetch",
            "--quiet",
            "--force",
            "--no-tags",
            "--no-write-fetch-head",
            *arguments,
            directory=directory,
            protocol=remote.scheme,
            access=remote.access,
            timeout_seconds=self._timeout,
            until=partial(_grown, directory, self._max_bytes),
        )
        if not outcome.ok:
            await asyncio.to_thread(remove_leftovers, directory)
            raise (
                too_large
                if outcome.ended is Ended.STOPPED
                else failure(outcome, remote.url, known=bool(remote.access))
            )
        # A fast fetch ends between two looks at its size.
        if await asyncio.to_thread(size_of, directory) > self._max_bytes:
            await asyncio.to_thread(shutil.rmtree, directory)
            self._exists, self.refs = False, _NOTHING
            raise too_large
        if is_shallow(outcome):
            raise RepositoryError(
                f"The repository at {remote.url} is a shallow clone, which lacks history: "
                "use a full one."
            )
        if not await self._read_refs(directory):
            raise StorageFailure("A mirror cannot be read back: check the data directory's disk.")

    async def _read_refs(self, directory: Path) -> bool:
        outcome = await self._git.run(
            "for-each-ref",
            f"--format={LISTING_FORMAT}",
            BRANCHES,
            TAGS,
            directory=directory,
            timeout_seconds=LOCAL_SECONDS,
            max_output=2 * MAX_ADVERTISEMENT_BYTES,
        )
        if outcome.ok:
            self.refs = MappingProxyType(parse_listing(outcome.stdout))
        return outcome.ok

    async def _local(self, *arguments: str, stdin: str = "") -> GitOutcome:
        return await self._git.run(
            *arguments,
            directory=self.directory,
            stdin=stdin.encode(),
            timeout_seconds=LOCAL_SECONDS,
            max_output=MAX_ADVERTISEMENT_BYTES,
        )


def pinned(remote: Remote) -> tuple[str, ...]:
    """The option that keeps git from resolving the host name again."""
    return ("-c", f"http.curloptResolve={remote.pin}") if remote.pin else ()


def size_of(directory: Path) -> int:
    """Bytes in all files below a directory that may change meanwhile."""
    total = 0
    waiting: list[str | Path] = [directory]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return total


def remove_leftovers(mirror: Path) -> None:
    """Remove what a killed git leaves behind: lock files and packs that were never finished."""
    removals: tuple[tuple[Path, str], ...] = (
        (mirror, "*.lock"),
        (mirror / "refs", "**/*.lock"),
        (mirror / "objects", "**/tmp_*"),
    )
    for place, pattern in removals:
        for leftover in place.glob(pattern):
            leftover.unlink(missing_ok=True)


async def _grown(directory: Path, limit: int) -> None:
    """Return once the directory takes more than `limit` bytes."""
    size = 0
    while size <= limit:
        await asyncio.sleep(WATCH_SECONDS)
        size = await asyncio.to_thread(size_of, directory)
