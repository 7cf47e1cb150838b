"""A program of its own that measures what directories hold on disk.

It runs as a process that may read every directory, on this machine or in a container, so it needs
nothing but Python. Only names and sizes are read; links are not followed; a file with several names
counts once. Every name counts `NAME_BYTES` on top, for names and inodes fill a disk as well, and so
the limit on bytes bounds the number of files too.

Arguments: seconds it may take, then the directories. It prints one line of JSON: the bytes, and
whether everything was seen.
"""

import errno
import json
import os
import resource
import stat
import sys
import time
from collections.abc import Sequence

NAME_BYTES = 1024
BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own are
MOST_REMEMBERED = 1_000_000
NAMES_A_LOOK = 4096
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
VANISHED = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}


class Walk:
    """Adds up what lies below directories.

    Args:
        seconds: How long it may take.
    """

    def __init__(self, seconds: float) -> None:
        self.used_bytes = 0
        self.whole = True
        self._deadline = time.monotonic() + seconds
        self._linked: set[tuple[int, int]] = set()
        self._names = 0
        self._waiting = 0

    def add(self, root: str) -> None:
        """Add a directory; one that does not exist holds nothing."""
        first = self._open(root, None)
        if first is None:
            return
        device = os.fstat(first).st_dev
        # One open directory a level, and the names in it that are still to be entered.
        levels = [(first, self._read(first))]
        try:
            while levels and self._has_time():
                directory, names = levels[-1]
                if not names:
                    os.close(directory)
                    levels.pop()
                    continue
                self._waiting -= 1
                child = self._open(names.pop(), directory)
                if child is None:
                    continue
                if os.fstat(child).st_dev != device:
                    os.close(child)
                    continue
                levels.append((child, self._read(child)))
        finally:
            for directory, _ in levels:
                os.close(directory)

    def _read(self, directory: int) -> list[str]:
        """Count what is in a directory; returns the names of those in it."""
        inside: list[str] = []
        try:
            entries = os.scandir(directory)
        except OSError as error:
            self._missed(error)
            return inside
        with entries:
            while True:
                try:
                    entry = next(entries, None)
                    if entry is None:
                        break
                    facts = entry.stat(follow_symlinks=False)
                except OSError as error:
                    self._missed(error)
                    continue
                self._count(facts)
                if stat.S_ISDIR(facts.st_mode):
                    inside.append(entry.name)
                if self._waiting + len(inside) > MOST_REMEMBERED:
                    self.whole = False
                    break
                if self._names % NAMES_A_LOOK == 0 and not self._has_time():
                    break
        self._waiting += len(inside)
        return inside

    def _count(self, facts: os.stat_result) -> None:
        self._names += 1
        self.used_bytes += NAME_BYTES
        if facts.st_nlink > 1 and not stat.S_ISDIR(facts.st_mode):
            inode = (facts.st_dev, facts.st_ino)
            if inode in self._linked:
                return
            if len(self._linked) < MOST_REMEMBERED:  # beyond, every name counts in full
                self._linked.add(inode)
        self.used_bytes += facts.st_blocks * BLOCK_BYTES

    def _open(self, name: str, directory: int | None) -> int | None:
        try:
            return os.open(name, OPEN_DIRECTORY, dir_fd=directory)
        except OSError as error:
            self._missed(error)
            return None

    def _missed(self, error: OSError) -> None:
        if error.errno not in VANISHED:
            self.whole = False

    def _has_time(self) -> bool:
        if time.monotonic() < self._deadline:
            return True
        self.whole = False
        return False


def main(arguments: Sequence[str]) -> None:
    """Measure, and print the result."""
    seconds, *roots = arguments
    os.nice(10)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    walk = Walk(float(seconds))
    for root in roots:
        walk.add(root)
    print(json.dumps([walk.used_bytes, walk.whole]))


if __name__ == "__main__":
    main(sys.argv[1:])
