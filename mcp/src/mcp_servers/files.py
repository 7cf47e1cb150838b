"""Reading and replacing regular files below the task's root."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mcp.server.mcpserver.exceptions import ToolError

from mcp_servers.paths import Place, explained, place

READ_LIMIT = 10 * 1024 * 1024
"""Most bytes that one read returns."""

_BLOCK = 64 * 1024
# Without O_NONBLOCK, opening a fifo that nobody writes to would never return.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Staged:
    """New content that waits in a temporary file beside the file it will replace."""

    target: Place
    temporary: str

    def commit(self) -> None:
        """Put the content in place in one step."""
        with explained(self.target.relative):
            os.rename(
                self.temporary,
                self.target.name,
                src_dir_fd=self.target.parent,
                dst_dir_fd=self.target.parent,
            )


@contextmanager
def opened(root: Path, path: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Raises:
        ToolError: it does not exist, leaves the root, or is a directory, device, pipe or socket.
    """
    with place(root, path) as spot:
        _require_file(spot, path)
        if not spot.exists():
            raise ToolError(f"{path}: no such file")
        with explained(path):
            descriptor = os.open(spot.name, _READ, dir_fd=spot.parent)
        with os.fdopen(descriptor, "rb") as file:
            # Asked again of the open file: the entry may have been replaced since the lookup.
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ToolError(f"{path}: not a regular file")
            with explained(path):
                yield file


def read_bytes(root: Path, path: str, limit: int = READ_LIMIT) -> bytes:
    """Read a whole file of at most `limit` bytes.

    Raises:
        ToolError: it cannot be read or is larger.
    """
    with opened(root, path) as file:
        data = file.read(limit + 1)
        if len(data) > limit:
            raise ToolError(
                f"{path}: {os.fstat(file.fileno()).st_size} bytes, more than the limit of "
                f"{limit} bytes; read a part of it with head or tail, or use bash"
            )
    return data


def read_head(root: Path, path: str, lines: int) -> bytes:
    """Read the first `lines` lines without reading the rest."""
    kept = bytearray()
    with opened(root, path) as file:
        for _ in range(lines):
            line = file.readline(READ_LIMIT + 1 - len(kept))
            if not line:
                break
            kept += line
            if len(kept) > READ_LIMIT:
                raise _part_too_large(path, "first", lines)
    return bytes(kept)


def read_tail(root: Path, path: str, lines: int) -> bytes:
    """Read the last `lines` lines, from the end backwards."""
    blocks: list[bytes] = []
    size = newlines = 0
    with opened(root, path) as file:
        position = file.seek(0, os.SEEK_END)
        # One newline more than lines: the one that ends the last line starts no further line.
        while position > 0 and newlines <= lines:
            step = min(_BLOCK, position)
            position = file.seek(position - step)
            block = file.read(step)
            blocks.append(block)
            size += len(block)
            newlines += block.count(b"\n")
            if size > READ_LIMIT + _BLOCK:
                raise _part_too_large(path, "last", lines)
    tail = _last_lines(b"".join(reversed(blocks)), lines)
    if len(tail) > READ_LIMIT:
        raise _part_too_large(path, "last", lines)
    return tail


def to_text(path: str, data: bytes, *, strict: bool = False) -> str:
    """Decode UTF-8, by default with replacement of invalid bytes.

    Raises:
        ToolError: the data is binary, or (with `strict`) not UTF-8.
    """
    if b"\0" in data[:8192]:
        raise ToolError(f"{path}: a binary file; use read_media_file or bash")
    try:
        return data.decode("utf-8", "strict" if strict else "replace")
    except UnicodeDecodeError:
        raise ToolError(f"{path}: not valid UTF-8, so editing it here would damage it") from None


@contextmanager
def staged(root: Path, path: str, data: bytes, *, mode: int | None = None) -> Iterator[Staged]:
    """Write new content beside its target; `commit` puts it in place, else it is dropped.

    Args:
        root: The directory that nothing may leave.
        path: The file to make or replace. Missing directories are made.
        data: The whole content.
        mode: Permission bits; by default those of the file it replaces.
    """
    with place(root, path, write=True, parents=True) as target:
        _require_file(target, path)
        if mode is None and target.info is not None:
            mode = target.info.st_mode & 0o777
        temporary = f".berth-{secrets.token_hex(8)}.tmp"
        with explained(path):
            descriptor = os.open(temporary, _CREATE, 0o666, dir_fd=target.parent)
        try:
            with explained(path), os.fdopen(descriptor, "wb") as file:
                if mode is not None:
                    os.fchmod(descriptor, mode)
                file.write(data)
            yield Staged(target, temporary)
        finally:
            # After a commit it is gone.
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=target.parent)


def write_bytes(root: Path, path: str, data: bytes, *, mode: int | None = None) -> bool:
    """Make or replace a file in one step and say whether it is new."""
    with staged(root, path, data, mode=mode) as new:
        new.commit()
        return not new.target.exists()


def remove(root: Path, path: str) -> None:
    """Delete a regular file or a link.

    Raises:
        ToolError: it does not exist, is a directory, or may not be changed.
    """
    with place(root, path, write=True, follow=False) as spot, explained(path):
        os.unlink(spot.name, dir_fd=spot.parent)


def _last_lines(data: bytes, lines: int) -> bytes:
    ended = data.endswith(b"\n")
    parts = data.split(b"\n")
    wanted = lines + 1 if ended else lines
    return b"\n".join(parts[-wanted:]) if lines else b""


def _require_file(spot: Place, path: str) -> None:
    if spot.is_directory():
        raise ToolError(f"{path}: is a directory, not a file")
    if spot.exists() and not spot.is_regular():
        raise ToolError(f"{path}: not a regular file")


def _part_too_large(path: str, which: str, lines: int) -> ToolError:
    return ToolError(
        f"{path}: the {which} {lines} lines are more than the limit of {READ_LIMIT} bytes; "
        "ask for fewer, or use bash"
    )
