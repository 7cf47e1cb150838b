"""Objects as files under one directory.

    <root>/objects/a+/b=      the object `a/b`
    <root>/incoming/…         objects that are being written

A directory ends in `+` and an object in `=`, so `a` and `a/b` can both exist.
"""

import asyncio
import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import ObjectNotFound, StorageFailure
from orchestrator.ports import ObjectInfo
from orchestrator.storage.objects.keys import check_key, key_problem

_DIRECTORY = "+"
_OBJECT = "="
_PUT_TRIES = 10


class FileObjectStore:
    """`ports.ObjectStore` on a directory of a local or network file system.

    Args:
        root: Belongs to the store alone; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._incoming = root / "incoming"

    async def clean(self) -> int:
        """Remove what interrupted writes left behind; returns how many. Call it at start-up."""
        return await asyncio.to_thread(self._clean)

    async def put(self, key: str, content: bytes) -> ObjectInfo:
        """Store or replace an object; readers see the old one or the new one, never a part.

        It is on the disk when this returns.

        Raises:
            InvalidRequest: The key cannot be used.
            StorageFailure: The disk is full or failing.
        """
        check_key(key)
        return await asyncio.to_thread(self._put, key, content)

    async def get(self, key: str) -> bytes:
        """The object's content.

        Raises:
            InvalidRequest: The key cannot be used.
            ObjectNotFound: There is none.
        """
        check_key(key)
        return await asyncio.to_thread(self._get, key)

    async def list(self, prefix: str) -> Sequence[ObjectInfo]:
        """All objects whose key starts with `prefix`, sorted by key."""
        return await asyncio.to_thread(self._list, prefix)

    async def delete(self, key: str) -> bool:
        """Delete an object; False if there was none.

        Raises:
            InvalidRequest: The key cannot be used.
        """
        check_key(key)
        return await asyncio.to_thread(self._delete, key)

    def _path(self, key: str) -> Path:
        *directories, name = key.split("/")
        return self._objects.joinpath(*(part + _DIRECTORY for part in directories), name + _OBJECT)

    def _put(self, key: str, content: bytes) -> ObjectInfo:
        with _failures(key), self._new_file() as (descriptor, temporary):
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(descriptor)
            status = os.fstat(descriptor)
            _move(temporary, self._path(key))
        return _info(key, status)

    @contextmanager
    def _new_file(self) -> Iterator[tuple[int, Path]]:
        """A file in `incoming`, locked so that `clean` sees that its writer lives."""
        _make_directory(self._incoming)
        while True:
            descriptor, name = tempfile.mkstemp(dir=self._incoming)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink == 0:
                    continue  # cleaned away before it was locked
                yield descriptor, Path(name)
                return
            finally:
                Path(name).unlink(missing_ok=True)
                os.close(descriptor)

    def _get(self, key: str) -> bytes:
        try:
            with _failures(key):
                return self._path(key).read_bytes()
        except FileNotFoundError:
            raise ObjectNotFound(f"Object storage holds nothing under {key!r}.", key=key) from None

    def _list(self, prefix: str) -> Sequence[ObjectInfo]:
        *parents, _ = prefix.split("/")
        if parents and key_problem("/".join(parents)):
            return []
        start = self._objects.joinpath(*(part + _DIRECTORY for part in parents))
        found = [
            info
            for info in _walk(start, "".join(part + "/" for part in parents))
            if info.key.startswith(prefix)
        ]
        return sorted(found, key=lambda info: info.key)

    def _delete(self, key: str) -> bool:
        path = self._path(key)
        with _failures(key):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            self._remove_empty(path.parent)
        return True

    def _remove_empty(self, directory: Path) -> None:
        while directory != self._objects:
            try:
                directory.rmdir()
            except OSError:
                break  # not empty, or another delete was faster: either way done here
            directory = directory.parent
        # The directory may be gone by another delete; then that one syncs its parent.
        with suppress(FileNotFoundError):
            _sync_directory(directory)

    def _clean(self) -> int:
        if not self._incoming.exists():
            return 0
        return sum(_remove_abandoned(path) for path in self._incoming.iterdir())


def _remove_abandoned(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False  # its writer is at work
    else:
        # A writer moves its file away while it holds the lock, so this name may be gone by now.
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _move(temporary: Path, path: Path) -> None:
    for attempt in range(_PUT_TRIES):
        _make_directory(path.parent)
        try:
            temporary.replace(path)
        except FileNotFoundError:
            # A delete removed the directory because it was empty until now.
            if attempt == _PUT_TRIES - 1:
                raise
        else:
            with suppress(FileNotFoundError):  # deleted again meanwhile, directory and all
                _sync_directory(path.parent)
            return


def _make_directory(path: Path) -> None:
    """Make a directory and its parents, each on the disk before anything is put into it."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        _make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileNotFoundError):
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(directory: Path, prefix: str) -> Iterator[ObjectInfo]:
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return  # never made, or removed by a delete meanwhile
    for entry in entries:
        name = entry.name[:-1]
        if entry.name.endswith(_DIRECTORY):
            yield from _walk(Path(entry.path), f"{prefix}{name}/")
        elif entry.name.endswith(_OBJECT):
            with suppress(FileNotFoundError):  # deleted meanwhile
                yield _info(prefix + name, entry.stat())


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


@contextmanager
def _failures(key: str) -> Iterator[None]:
    """Say what failed, except that an object is missing."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageFailure(
            f"Object storage failed at {key!r} ({error.strerror}): check its disk's free space "
            "and permissions.",
            key=key,
        ) from error
