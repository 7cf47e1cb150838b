"""Write files into a task's tree without following a link that leads out of it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from agent.errors import Conflict
from agent.layout import OUTPUTS, PRIVATE

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def place_file(root: Path, path: str, content: bytes) -> None:
    """Make a file at a path below the root, and the directories on the way to it.

    Raises:
        Conflict: Something is there already, or something on the way is no directory.
    """
    *directories, name = PurePosixPath(path).parts
    try:
        with _directory(root, directories) as parent:
            _write_new(parent, name, content)
    except (FileExistsError, NotADirectoryError):
        raise Conflict(f"{path} exists in the repository: give the file another name") from None


def keep_output(root: Path, name: str, content: bytes) -> str:
    """Make or replace a file in the outputs of a task and return its path below the root.

    The directory's name is ours: whatever else a task put there gives way.
    """
    for names in ([PRIVATE], [PRIVATE, OUTPUTS]):
        _make_room(root, names)
    with _directory(root, [PRIVATE, OUTPUTS]) as parent:
        new = f"{name}.new"
        _remove(parent, new)
        _write_new(parent, new, content)
        os.replace(new, name, src_dir_fd=parent, dst_dir_fd=parent)
    return str(PurePosixPath(PRIVATE, OUTPUTS, name))


def _make_room(root: Path, names: Sequence[str]) -> None:
    *directories, name = names
    with _directory(root, directories) as parent:
        try:
            os.close(os.open(name, _DIRECTORY, dir_fd=parent))
        except FileNotFoundError:
            return
        except OSError:  # a link or a file; what else keeps us out shows when we write
            _remove(parent, name)


def _remove(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


@contextmanager
def _directory(root: Path, names: Sequence[str]) -> Iterator[int]:
    """A descriptor of the directory; missing ones are made."""
    descriptor = os.open(root, _DIRECTORY)
    try:
        for name in names:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=descriptor)
            inner = os.open(name, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _write_new(parent: int, name: str, content: bytes) -> None:
    with os.fdopen(os.open(name, _NEW_FILE, 0o644, dir_fd=parent), "wb") as file:
        file.write(content)
