"""Turns a task's patch into commits, in a repository of its own that borrows from the mirrors."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from orchestrator.errors import ConfigurationError, PublishError, StorageFailure
from orchestrator.gateway.failures import excerpt
from orchestrator.gateway.git_command import MIB, NOTHING, Git
from orchestrator.gateway.git_process import GitOutcome

LOCAL_SECONDS = 120.0
MAX_OUTPUT = 64 * MIB
MERGING_VERSION = (2, 38)
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_AUTHOR = re.compile(r"(?P<name>[^<>]+) <(?P<email>[^<>]+)>")
_CONFLICTS = 1


class Scratch:
    """A bare repository for one publication; nothing the container made takes part in it.

    Args:
        git: Runs the commands.
        directory: Where it will lie.
    """

    def __init__(self, git: Git, directory: Path) -> None:
        self.directory = directory
        self._git = git
        self._index = {"GIT_INDEX_FILE": str(directory / "index")}

    async def make(self, mirrors: Sequence[Path]) -> None:
        """Make the repository; it reads the mirrors' objects and never writes to them.

        Raises:
            ConfigurationError: git is too old.
        """
        if await self._git.version() < MERGING_VERSION:
            raise ConfigurationError("git is too old to publish with: install git 2.38 or newer.")
        await asyncio.to_thread(self.directory.mkdir, mode=0o700, parents=True)
        await self._done("init", "--quiet", "--bare", "--template=", "--initial-branch=main")
        borrowed = "".join(f"{mirror / 'objects'}\n" for mirror in mirrors)
        alternates = self.directory / "objects" / "info" / "alternates"
        await asyncio.to_thread(alternates.parent.mkdir, exist_ok=True)
        await asyncio.to_thread(alternates.write_text, borrowed)

    async def trees(self, starts: Mapping[str, str], diff: str) -> Mapping[str, str]:
        """The tree of each repository after the patch.

        Args:
            starts: The start commits by the repositories' names.
            diff: The patch; with several repositories its paths begin with their names.

        Raises:
            PublishError: The patch does not apply.
        """
        several = len(starts) > 1
        before = [f"040000 tree {await self.tree_of(starts[name])}\t{name}" for name in starts]
        side_by_side = "\n".join(before).encode()
        start = (
            await self._line("mktree", stdin=side_by_side)
            if several
            else next(iter(starts.values()))
        )
        await self._done("read-tree", start, environment=self._index)
        applied = await self._run(
            *("apply", "--cached", "--whitespace=nowarn", "-"),
            stdin=diff.encode(),
            environment=self._index,
        )
        if not applied.ok:
            raise PublishError(
                "The task's diff does not apply to the commit it started from. git says: "
                f"{excerpt(applied.stderr)}"
            )
        root = await self._line("write-tree", environment=self._index)
        if not several:
            return dict.fromkeys(starts, root)
        found = await self._entries(root)
        if not found.keys() <= starts.keys():
            raise PublishError("The task's diff touches files outside its repositories.")
        return {name: found.get(name, EMPTY_TREE) for name in starts}

    async def tree_of(self, commit: str) -> str:
        """The tree of a commit."""
        return await self._line("rev-parse", "--verify", f"{commit}^{{tree}}")

    async def commit(self, tree: str, parent: str, message: str, author: str, at: datetime) -> str:
        """A commit; the same arguments make the same one.

        Raises:
            ConfigurationError: The author is not of the form `Name <address>`.
        """
        known = _AUTHOR.fullmatch(author)
        if known is None:
            raise ConfigurationError("BERTH_PUBLISH_AUTHOR must read: Name <address>.")
        date = f"{int(at.timestamp())} +0000"
        environment = {
            f"GIT_{role}_{part}": value
            for role in ("AUTHOR", "COMMITTER")
            for part, value in (("NAME", known["name"]), ("EMAIL", known["email"]), ("DATE", date))
        }
        return await self._line(
            *("commit-tree", tree, "-p", parent, "-F", "-"),
            stdin=message.encode(),
            environment=environment,
        )

    async def conflicts(self, ours: str, theirs: str) -> tuple[str, ...]:
        """Paths that a merge of two commits leaves to people; nothing is changed by asking."""
        outcome = await self._run(
            *("merge-tree", "--write-tree", "-z", "--name-only", "--no-messages"),
            *("--allow-unrelated-histories", ours, theirs),
        )
        if outcome.ok:
            return ()
        if outcome.returncode != _CONFLICTS:
            raise PublishError(
                f"The merge with the base could not be tried. git says: {excerpt(outcome.stderr)}"
            )
        _tree, *paths = outcome.stdout.decode(errors="backslashreplace").split("\0")
        return tuple(dict.fromkeys(path for path in paths if path))

    async def _entries(self, tree: str) -> Mapping[str, str]:
        listing = await self._done("ls-tree", "-z", tree)
        found = {}
        for line in listing.decode(errors="surrogateescape").split("\0")[:-1]:
            facts, _, name = line.partition("\t")
            found[name] = facts.split()[2]
        return found

    async def _line(
        self, *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] = NOTHING
    ) -> str:
        output = await self._done(*arguments, stdin=stdin, environment=environment)
        return output.decode().strip()

    async def _done(
        self, *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] = NOTHING
    ) -> bytes:
        outcome = await self._run(*arguments, stdin=stdin, environment=environment)
        if not outcome.ok:
            raise StorageFailure(
                f"git {arguments[0]} failed in the data directory: check its disk. git says: "
                f"{excerpt(outcome.stderr)}"
            )
        return outcome.stdout

    async def _run(
        self, *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] = NOTHING
    ) -> GitOutcome:
        return await self._git.run(
            *arguments,
            directory=self.directory,
            stdin=stdin,
            timeout_seconds=LOCAL_SECONDS,
            max_output=MAX_OUTPUT,
            environment=environment,
        )
