"""Paths that cannot leave the task's root.

Each component is looked up relative to a descriptor of the directory before it, and links are
resolved here instead of by the kernel. A directory that is swapped for a link between two steps
makes the lookup fail; it cannot lead it outside.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mcp.server.mcpserver.exceptions import ToolError

MAX_LINKS = 40
MAX_DEPTH = 200

_ENTER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REASONS = {
    errno.EACCES: "permission denied",
    errno.EEXIST: "it already exists",
    errno.EISDIR: "is a directory",
    errno.ELOOP: "a link was put in its way while it was being opened",
    errno.ENOENT: "no such file or directory",
    errno.ENOSPC: "the disk is full",
    errno.ENOTDIR: "a part of the path is not a directory",
    errno.ENOTEMPTY: "the directory is not empty",
    errno.EROFS: "the file system is read-only",
}


class PathError(ToolError):
    """A path that the tools do not accept."""


class MissingParentError(PathError):
    """A directory on the way does not exist; `relative` is where the path would be."""

    def __init__(self, path: str, relative: str) -> None:
        super().__init__(f"{path}: {_REASONS[errno.ENOENT]}")
        self.relative = relative


@dataclass(frozen=True, slots=True)
class Place:
    """One entry of a directory below the root, whether it exists or not.

    `parent` is a descriptor of the directory and `name` the entry in it ("." for `parent`
    itself). `relative` is the path below the root with all links resolved. `info` describes the
    entry without following it, and is None where nothing exists.
    """

    parent: int
    name: str
    relative: str
    info: os.stat_result | None

    def exists(self) -> bool:
        """Say whether there is an entry of that name."""
        return self.info is not None

    def is_directory(self) -> bool:
        """Say whether the entry is a directory."""
        return self.info is not None and stat.S_ISDIR(self.info.st_mode)

    def is_regular(self) -> bool:
        """Say whether the entry is a regular file."""
        return self.info is not None and stat.S_ISREG(self.info.st_mode)


@contextmanager
def place(
    root: Path, path: str, *, write: bool = False, parents: bool = False, follow: bool = True
) -> Iterator[Place]:
    """Find the entry that `path` names. Its descriptor is open inside the block only.

    Args:
        root: The directory that nothing may leave.
        path: Relative to the root, or absolute inside it.
        write: The entry will be changed; paths in a `.git` are refused.
        parents: Make missing directories on the way.
        follow: Follow a link in the last component, as all others are followed.

    Raises:
        PathError: the path leaves the root, is malformed, or may not be changed.
        MissingParentError: a directory on the way does not exist.
        ToolError: the operating system refuses it.
    """
    with explained(path):
        walk = _Walk(root, path, write=write, parents=parents)
    try:
        with explained(path):
            found = walk.to_end(follow=follow)
        yield found
    finally:
        walk.close()


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn errors of the operating system into tool errors that name `path` and no other."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or (error.strerror or "failed").lower()
        raise ToolError(f"{path}: {reason}") from error


def shown(name: str) -> str:
    """Return a file name as valid Unicode, with replacement of bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


class _Walk:
    """A stack of open directories, from the root to where the walk has come."""

    def __init__(self, root: Path, path: str, *, write: bool, parents: bool) -> None:
        self._path = path
        self._write = write
        self._parents = parents
        self._bases = (PurePosixPath(root), PurePosixPath(os.path.realpath(root)))
        self._names: list[str] = []
        self._links = 0
        self._pending = deque(self._parts(path))
        self._open = [os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]

    def close(self) -> None:
        """Close all directories."""
        while self._open:
            os.close(self._open.pop())

    def to_end(self, *, follow: bool) -> Place:
        """Walk all components and return the entry that the last one names."""
        while self._pending:
            part = self._pending.popleft()
            if part == "..":
                self._leave()
                continue
            info = self._look(part)
            last = not self._pending
            if info is not None and stat.S_ISLNK(info.st_mode) and (follow or not last):
                self._follow(part)
            elif last:
                return Place(self._open[-1], part, "/".join([*self._names, part]), info)
            else:
                self._enter(part, exists=info is not None)
        here = self._open[-1]
        return Place(here, ".", "/".join(self._names) or ".", os.fstat(here))

    def _look(self, part: str) -> os.stat_result | None:
        if self._write and part.casefold() == ".git":
            raise PathError(f"{self._path}: git's own files cannot be changed with file tools")
        try:
            return os.stat(part, dir_fd=self._open[-1], follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _enter(self, part: str, *, exists: bool) -> None:
        if not exists and not self._parents and ".." not in self._pending:
            raise MissingParentError(self._path, "/".join([*self._names, part, *self._pending]))
        if not exists and self._parents:
            # Another call may make the same directory at the same time.
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=self._open[-1])
        if len(self._open) >= MAX_DEPTH:
            raise PathError(f"{self._path}: nested deeper than {MAX_DEPTH} directories")
        self._open.append(os.open(part, _ENTER, dir_fd=self._open[-1]))
        self._names.append(part)

    def _leave(self) -> None:
        if not self._names:
            raise self._outside()
        self._names.pop()
        os.close(self._open.pop())

    def _follow(self, part: str) -> None:
        self._links += 1
        if self._links > MAX_LINKS:
            raise PathError(f"{self._path}: more than {MAX_LINKS} symbolic links on the way")
        target = os.readlink(part, dir_fd=self._open[-1])
        parts = self._parts(target)
        if target.startswith("/"):
            while self._names:
                self._leave()
        self._pending.extendleft(reversed(parts))

    def _parts(self, path: str) -> list[str]:
        """Split a path into components below the root (if absolute) or below here."""
        if not path or "\0" in path:
            raise PathError("the path is empty or contains a null character")
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            raise PathError("the path is not valid Unicode") from None
        # PurePosixPath drops "." and doubled slashes and keeps "..".
        pure = PurePosixPath(path)
        if not pure.is_absolute():
            return list(pure.parts)
        for base in self._bases:
            if pure.is_relative_to(base):
                return list(pure.relative_to(base).parts)
        raise self._outside()

    def _outside(self) -> PathError:
        return PathError(
            f"{self._path}: leads outside the workspace; give a path inside it, "
            "relative to its root"
        )
