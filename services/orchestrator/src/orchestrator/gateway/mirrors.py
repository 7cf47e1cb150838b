"""The orchestrator's side of git: mirrors of the repositories that tasks work on."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.domain.repository import RepositoryUrl
from orchestrator.domain.task import StartPoint
from orchestrator.errors import (
    BerthError,
    ConfigurationError,
    RequestTooLarge,
    StorageFailure,
    UnknownRef,
)
from orchestrator.gateway.address import AddressPolicy, Remote, Resolver, resolve
from orchestrator.gateway.bundle import stream_bundle
from orchestrator.gateway.credentials import Credentials
from orchestrator.gateway.forges.http import ForgeHttp
from orchestrator.gateway.git_command import GIB, MIB, PINNING_VERSION, Git
from orchestrator.gateway.github_app import InstallationTokens
from orchestrator.gateway.mirror import LOCAL_SECONDS, NEW_SUFFIX, Mirror
from orchestrator.gateway.refs import (
    BRANCHES,
    HEAD,
    Advertisement,
    is_commit_id,
    require_valid_ref,
    unknown_ref,
    wanted_ref,
)

MAX_FETCHES = 4
_FILE_MODES = (b"100644", b"100755")


class GitRepositories:
    """Implements `ports.Repositories` with git's own commands.

    Args:
        data_dir: Mirrors lie under `mirrors/` in it, git's configuration under `git/`.
        allow_paths: Directories that local repositories may be taken from.
        allow_hosts: `host` or `host:port` that may have addresses which are not public.
        max_repository_bytes: Most that a mirror may take on disk.
        timeout_seconds: Longest time one exchange with a git server may take.
        max_file_bytes: Largest file that `read_file` returns.
        max_memory_bytes: Most memory that one git command may hold.
        resolver: Maps host names to addresses.
        environment: Where PATH and certificate settings are taken from; the process's own if None.
        credentials: For private repositories; none if None.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        allow_paths: Sequence[Path],
        allow_hosts: Sequence[str],
        max_repository_bytes: int,
        timeout_seconds: float,
        max_file_bytes: int,
        max_memory_bytes: int = GIB,
        resolver: Resolver = resolve,
        environment: Mapping[str, str] | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._root = data_dir.absolute() / "mirrors"
        self._credentials = credentials or Credentials((), {}, InstallationTokens(ForgeHttp()))
        self.git = Git(
            data_dir / "git",
            os.environ if environment is None else environment,
            max_memory_bytes=max_memory_bytes,
        )
        self._policy = AddressPolicy(allow_paths, allow_hosts, resolver)
        self._max_repository_bytes = max_repository_bytes
        self._timeout = timeout_seconds
        self._max_file_bytes = max_file_bytes
        self._mirrors: dict[RepositoryUrl, Mirror] = {}
        self._fetches = asyncio.Semaphore(MAX_FETCHES)
        self._opening = asyncio.Lock()
        self._opened = False

    async def start_point(self, url: RepositoryUrl, name: str, ref: str | None) -> StartPoint:
        """Bring the mirror up to date and resolve `ref` (None: the remote's HEAD) in it.

        Callers that wait for each other share one listing of the remote, provided it began after
        they called.

        Raises:
            RepositoryError: Refused, unreachable, empty, too large, needs credentials, no such ref.
            ConfigurationError: git is missing or too old.
        """
        if ref is not None:
            require_valid_ref(ref)
        remote = await self._admit(url)
        mirror = await self._mirror(url)
        seen = mirror.listings_begun
        async with mirror.lock:
            await mirror.load()
            advertised = await _listing(mirror, remote, seen)
            wanted = wanted_ref(advertised, ref)
            if advertised.refs != {name: known.target for name, known in mirror.refs.items()}:
                async with self._fetches:
                    await mirror.fetch(remote)
            commit = await self._resolve(mirror, remote, advertised, wanted, ref)
        return StartPoint(name, commit, ref or (wanted or HEAD).removeprefix(BRANCHES))

    async def bundle(
        self, url: RepositoryUrl, start: StartPoint, have: Sequence[str]
    ) -> AsyncGenerator[bytes, None] | None:
        """A git bundle of the mirror without what follows from the commits in `have`.

        It names all branches and tags under their own names; a start commit that none of them is
        at gets a name under `refs/berth/pinned/`. Commits in `have` that the mirror lacks are
        ignored. None if a worker that has `have` lacks nothing for `start`.

        Raises:
            UnknownRef: The mirror does not have the start commit.
            StorageFailure: The mirror is damaged; raised while the bundle is read.
        """
        if start.commit in have:
            return None
        mirror = await self._loaded(url)
        known = await mirror.commits_among((start.commit, *have))
        if start.commit not in known:
            raise unknown_ref(start.commit)
        basis = known - {start.commit}
        if basis and await self._follows_from(mirror, start.commit, basis):
            return None
        return stream_bundle(self.git, mirror, mirror.refs, start.commit, basis)

    async def ensure(self, url: RepositoryUrl, start: StartPoint) -> None:
        """See that the mirror has a start commit, fetched once more where it was deleted.

        Raises:
            RepositoryError: The mirror lacks it, and it cannot be fetched.
        """
        mirror = await self._loaded(url)
        if not await mirror.commits_among((start.commit,)):
            await self.start_point(url, start.name, start.commit)

    async def objects(self, url: RepositoryUrl) -> Path:
        """Where the mirror's objects lie, for other repositories to borrow from."""
        return (await self._loaded(url)).directory / "objects"

    async def read_file(self, url: RepositoryUrl, commit: str, path: str) -> bytes | None:
        """A regular file's content at a commit, or None if there is no such file.

        Raises:
            RequestTooLarge: The file is larger than the limit.
            UnknownRef: The mirror does not have the commit.
        """
        mirror = await self._loaded(url)
        if not await mirror.commits_among((commit,)):
            raise unknown_ref(commit)
        if not _is_file_path(path):
            return None
        listing = await self._read(
            mirror, "--literal-pathspecs", "ls-tree", "-z", "-l", "--full-tree", commit, "--", path
        )
        facts, _, found = listing.rstrip(b"\0").partition(b"\t")
        if found != path.encode():
            return None
        mode, _, blob, size = facts.split()
        if mode not in _FILE_MODES:
            return None
        if int(size) > self._max_file_bytes:
            raise RequestTooLarge(
                f"{path} has {int(size)} bytes; at most {self._max_file_bytes} are taken.",
                file=path,
                limit=self._max_file_bytes,
            )
        return await self._read(mirror, "cat-file", "blob", blob.decode())

    async def _resolve(
        self,
        mirror: Mirror,
        remote: Remote,
        advertised: Advertisement,
        wanted: str | None,
        ref: str | None,
    ) -> str:
        asked = ref or HEAD
        if wanted is not None:
            known = mirror.refs.get(wanted)
            commit = None if known is None else known.commit or await mirror.commit_of(known.target)
        else:
            identifier = advertised.head_commit if asked == HEAD else asked.lower()
            commit = await self._commit(mirror, remote, identifier or asked)
        if commit is None:
            raise unknown_ref(asked)
        return commit

    async def _commit(self, mirror: Mirror, remote: Remote, identifier: str) -> str | None:
        found = await mirror.commit_of(identifier)
        if found is not None or not is_commit_id(identifier):
            return found
        try:
            async with self._fetches:
                await mirror.fetch_commit(remote, identifier)
        except UnknownRef:
            return None
        return await mirror.commit_of(identifier)

    async def _follows_from(self, mirror: Mirror, commit: str, have: set[str]) -> bool:
        lines = [commit, *(f"^{name}" for name in have)]
        missing = await self._read(
            mirror, "rev-list", "--max-count=1", "--stdin", stdin="\n".join(lines) + "\n"
        )
        return not missing

    async def _read(self, mirror: Mirror, *arguments: str, stdin: str = "") -> bytes:
        outcome = await self.git.run(
            *arguments,
            directory=mirror.directory,
            stdin=stdin.encode(),
            timeout_seconds=LOCAL_SECONDS,
            max_output=max(self._max_file_bytes, MIB),
        )
        if not outcome.ok:
            raise StorageFailure(
                f"The mirror {mirror.directory.name} cannot be read: check the data directory."
            )
        return outcome.stdout

    async def opened(self, origin: RepositoryUrl, commit: str) -> "Opened":
        """A mirror that is up to date and has this commit, with its remote as it is now.

        Raises:
            RepositoryError: Refused, unreachable, or the commit is not to be had any more.
        """
        remote = await self._admit(origin)
        mirror = await self._mirror(origin)
        async with mirror.lock:
            await mirror.load()
            advertised = await mirror.list(remote)
            if advertised.refs != {name: known.target for name, known in mirror.refs.items()}:
                async with self._fetches:
                    await mirror.fetch(remote)
            if await self._commit(mirror, remote, commit) is None:
                raise unknown_ref(commit)
        return Opened(mirror, remote, advertised)

    async def _admit(self, url: RepositoryUrl) -> Remote:
        """Where git connects, and with which credentials."""
        self._credentials.require_ssh_key(url)
        remote = await self._policy.admit(url)
        remote = remote.with_access(await self._credentials.access(url, remote.address))
        await self._require_pinning(remote)
        return remote

    async def _require_pinning(self, remote: Remote) -> None:
        if remote.scheme != "file" and await self.git.version() < PINNING_VERSION:
            raise ConfigurationError(
                "git is too old to reach servers safely: install git 2.37 or newer."
            )

    async def _loaded(self, url: RepositoryUrl) -> Mirror:
        mirror = await self._mirror(url)
        if not mirror.loaded:
            async with mirror.lock:
                await mirror.load()
        return mirror

    async def _mirror(self, url: RepositoryUrl) -> Mirror:
        async with self._opening:
            if not self._opened:
                await asyncio.to_thread(_prepare, self._root)
                self._opened = True
        if url not in self._mirrors:
            digest = hashlib.sha256(str(url).encode()).hexdigest()[:32]
            self._mirrors[url] = Mirror(
                self.git, self._root / f"{digest}.git", self._max_repository_bytes, self._timeout
            )
        return self._mirrors[url]


@dataclass(frozen=True, slots=True)
class Opened:
    """A mirror with the remote it was just brought up to date from."""

    mirror: Mirror
    remote: Remote
    advertised: Advertisement


async def _listing(mirror: Mirror, remote: Remote, seen: int) -> Advertisement:
    """What the remote has, from a listing that began after the first `seen` ones."""
    if mirror.listings_begun == seen or mirror.listing is None:
        return await mirror.list(remote)
    if isinstance(mirror.listing, BerthError):
        raise type(mirror.listing)(mirror.listing.detail, **mirror.listing.facts)
    return mirror.listing


def _is_file_path(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in path and {"", ".", ".."}.isdisjoint(path.split("/"))


def _prepare(root: Path) -> None:
    """Make the directory and remove first fetches that a killed process left unfinished."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for leftover in root.glob(f"*{NEW_SUFFIX}"):
        owner = int(leftover.suffixes[-2].removeprefix("."))
        if owner == os.getpid() or not Path(f"/proc/{owner}").exists():
            shutil.rmtree(leftover)
