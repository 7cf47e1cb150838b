"""Keeping what a reply may show of a stream that may be endless."""

import codecs
import os
import secrets
from contextlib import suppress
from pathlib import Path

from mcp.server.mcpserver.exceptions import ToolError

from mcp_servers.paths import explained, place

INLINE_LIMIT = 64 * 1024
"""Most bytes of one stream that a reply shows: all of it, or the head and tail of a longer one."""

LOG_LIMIT = 64 * 1024 * 1024
"""Most bytes of one stream that are kept in a log file."""

LOGS_KEPT = 32
"""Most log files below one root; the oldest give way."""

LOG_DIRECTORY = ".berth/outputs"

_HALF = INLINE_LIMIT // 2
_LATEST = 2000
_CONTINUATION = bytes(range(0x80, 0xC0))


class LogFile:
    """A file below the task's root that takes a long stream. It is made on the first write."""

    def __init__(self, root: Path, stream: str, limit: int = LOG_LIMIT) -> None:
        self._root = root
        self._limit = limit
        self._descriptor: int | None = None
        self.path = f"{LOG_DIRECTORY}/{secrets.token_hex(6)}.{stream}"
        self.kept = 0
        self.failure: str | None = None

    def write(self, data: bytes) -> None:
        """Append what fits under the limit. After a failure, whose reason is kept, do nothing."""
        room = data[: self._limit - self.kept]
        if self.failure is not None or not room:
            return
        try:
            if self._descriptor is None:
                self._descriptor = self._create()
            with explained(self.path):
                self.kept += os.write(self._descriptor, room)
        except ToolError as error:
            self.failure = str(error)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _create(self) -> int:
        with place(self._root, self.path, write=True, parents=True) as spot:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with explained(self.path):
                descriptor = os.open(spot.name, flags, 0o644, dir_fd=spot.parent)
                _drop_oldest(spot.parent)
        _hide_from_git(self._root)
        return descriptor


class Capture:
    """The head and tail of a stream, its length, and the end of its newest part."""

    def __init__(self, log: LogFile | None = None) -> None:
        """Start empty.

        Args:
            log: Takes the whole stream once it is longer than `INLINE_LIMIT`.
        """
        self._log = log
        self._head = bytearray()
        self._tail = bytearray()
        self._latest = b""
        self.total = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if self._log is not None and self.total + len(data) > INLINE_LIMIT:
            if self.total <= INLINE_LIMIT:
                self._log.write(bytes(self._head + self._tail))
            self._log.write(data)
        self.total += len(data)
        self._latest = data[-_LATEST:]
        room = _HALF - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        # Not each time, which would copy the tail for every few bytes.
        if len(self._tail) > 2 * _HALF:
            del self._tail[:-_HALF]

    def text(self) -> str:
        """Return the stream as text; the middle of a long one is replaced by a note."""
        if self.total <= INLINE_LIMIT:
            return (self._head + self._tail).decode("utf-8", "replace")
        head, tail = _cut_head(bytes(self._head)), _cut_tail(bytes(self._tail[-_HALF:]))
        note = f"{self.total - len(head) - len(tail)} bytes left out{self._where()}"
        return f"{head.decode('utf-8', 'replace')}\n[... {note} ...]\n" + tail.decode(
            "utf-8", "replace"
        )

    def newest_line(self, limit: int = 500) -> str:
        """Return the last line of the newest output that is not blank, cut to `limit`."""
        # A carriage return counts too: progress bars overwrite their line with it.
        lines = self._latest.decode("utf-8", "replace").replace("\r", "\n").split("\n")
        return next((line.strip()[-limit:] for line in reversed(lines) if line.strip()), "")

    def _where(self) -> str:
        if self._log is None:
            return ""
        if self._log.failure is not None:
            return f"; they were not all kept: {self._log.failure}"
        if self._log.kept < self.total:
            return f"; the first {self._log.kept} bytes are in {self._log.path}, the rest is lost"
        return f"; the whole output is in {self._log.path}"


def _cut_head(data: bytes) -> bytes:
    """Drop an incomplete UTF-8 sequence at the end."""
    return data[: codecs.utf_8_decode(data, "replace", False)[1]]


def _cut_tail(data: bytes) -> bytes:
    """Drop an incomplete UTF-8 sequence at the start: at most three continuation bytes."""
    return data[:3].lstrip(_CONTINUATION) + data[3:]


def _drop_oldest(parent: int) -> None:
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        # The directory is the model's to change, so entries may be anything and vanish any time.
        with os.scandir(directory) as entries:
            logs = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, entry.name)
                for entry in entries
                if entry.is_file(follow_symlinks=False)
            ]
        for _, name in sorted(logs)[:-LOGS_KEPT]:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
    finally:
        os.close(directory)


def _hide_from_git(root: Path) -> None:
    """Make git ignore the tools' own directory, whatever the repository's rules say."""
    path = ".berth/.gitignore"
    with place(root, path, write=True, follow=False) as spot, explained(path):
        if not spot.exists():
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(spot.name, flags, 0o644, dir_fd=spot.parent)
            try:
                os.write(descriptor, b"*\n")
            finally:
                os.close(descriptor)
