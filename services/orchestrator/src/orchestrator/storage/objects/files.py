"""Objects as files under one directory.

    <root>/objects/a+/b=      the object `a/b`
    <root>/incoming/…         objects that are being written
    <root>/locks/…            held while an object is replaced or deleted

A directory ends in `+` and an object in `=`, so `a` and `a/b` can both exist. A write is complete
with one rename, so killing its process at any moment leaves the old object or the new one.
"""

import asyncio
import fcntl
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import ObjectConflict, ObjectNotFound, StorageFailure
from orchestrator.ports import ObjectInfo, StoredObject
from orchestrator.storage.objects.arrival import arriving
from orchestrator.storage.objects.key_locks import locked
from orchestrator.storage.objects.keys import can_start_key, check_key
from orchestrator.storage.objects.object_file import (
    CHUNK_BYTES,
    Header,
    read_chunks,
    read_header,
    write_header,
    write_object,
)

_DIRECTORY = "+"
_OBJECT = "="
_PUT_TRIES = 10


class FileObjectStore:
    """`ports.ObjectStore` on a directory of a local or network file system.

    Args:
        root: Belongs to the store alone; made on first use.
        lock_seconds: Longest wait for another writer of the same key.
    """

    def __init__(self, root: Path, lock_seconds: float = 10.0) -> None:
        self._objects = root / "objects"
        self._incoming = root / "incoming"
        self._locks = root / "locks"
        self._lock_seconds = lock_seconds

    async def clean(self) -> int:
        """Remove what interrupted writes left behind; returns how many. Call it at start-up."""
        return await asyncio.to_thread(self._clean)

    async def put(
        self, key: str, content: bytes, *, if_generation: int | None = None
    ) -> ObjectInfo:
        """See the port; the object is on the disk when this returns."""
        check_key(key)
        return await asyncio.to_thread(self._put, key, [content], if_generation)

    async def put_file(
        self, key: str, path: Path, *, if_generation: int | None = None
    ) -> ObjectInfo:
        """See the port; the object is on the disk when this returns."""
        check_key(key)
        return await asyncio.to_thread(self._put, key, _chunks_of(path), if_generation)

    async def read(self, key: str) -> StoredObject:
        """See the port."""
        check_key(key)
        return await asyncio.to_thread(self._read, key)

    async def get_file(self, key: str, path: Path) -> ObjectInfo:
        """See the port."""
        check_key(key)
        return await asyncio.to_thread(self._get_file, key, path)

    async def list(self, prefix: str) -> Sequence[ObjectInfo]:
        """See the port."""
        return await asyncio.to_thread(self._list, prefix)

    async def delete(self, key: str, *, if_generation: int | None = None) -> bool:
        """See the port."""
        check_key(key)
        return await asyncio.to_thread(self._delete, key, if_generation)

    def _path(self, key: str) -> Path:
        *directories, name = key.split("/")
        return self._objects.joinpath(*(part + _DIRECTORY for part in directories), name + _OBJECT)

    def _put(self, key: str, chunks: Iterable[bytes], if_generation: int | None) -> ObjectInfo:
        path = self._path(key)
        with _failures(key), self._new_file() as (descriptor, temporary):
            header = write_object(descriptor, chunks, time.time_ns())
            with self._locked(key):
                current = _generation(path, key)
                _check_generation(key, current, if_generation)
                if header.generation <= current:  # the clock went back, or is coarse
                    header = replace(header, generation=current + 1)
                    write_header(descriptor, header)
                status = os.fstat(descriptor)
                _move(temporary, path)
            with suppress(FileNotFoundError):  # deleted again meanwhile, directory and all
                _sync_directory(path.parent)
        return _info(key, header, status)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        _make_directory(self._locks)
        with locked(self._locks, key, self._lock_seconds):
            yield

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

    def _read(self, key: str) -> StoredObject:
        with _failures(key), _existing(key), self._path(key).open("rb") as file:
            header = read_header(file, key)
            content = b"".join(read_chunks(file, header, key))
            return StoredObject(content, _info(key, header, os.fstat(file.fileno())))

    def _get_file(self, key: str, path: Path) -> ObjectInfo:
        with _failures(key):
            with _existing(key):
                source = self._path(key).open("rb")
            with source, arriving(path) as file:
                header = read_header(source, key)
                for chunk in read_chunks(source, header, key):
                    file.write(chunk)
                return _info(key, header, os.fstat(source.fileno()))

    def _list(self, prefix: str) -> Sequence[ObjectInfo]:
        if not can_start_key(prefix):
            return []
        *parents, _ = prefix.split("/")
        start = self._objects.joinpath(*(part + _DIRECTORY for part in parents))
        with _failures(prefix):
            found = [
                info
                for info in _walk(start, "".join(part + "/" for part in parents))
                if info.key.startswith(prefix)
            ]
        return sorted(found, key=lambda info: info.key)

    def _delete(self, key: str, if_generation: int | None) -> bool:
        path = self._path(key)
        with _failures(key), self._locked(key):
            current = _generation(path, key)
            if current == 0:
                return False
            _check_generation(key, current, if_generation)
            path.unlink()
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
                yield _stored_info(Path(entry.path), prefix + name)


def _stored_info(path: Path, key: str) -> ObjectInfo:
    with path.open("rb") as file:
        return _info(key, read_header(file, key), os.fstat(file.fileno()))


def _generation(path: Path, key: str) -> int:
    try:
        return _stored_info(path, key).generation
    except FileNotFoundError:
        return 0


def _check_generation(key: str, current: int, wanted: int | None) -> None:
    if wanted is not None and wanted != current:
        raise ObjectConflict(
            f"The object {key!r} was changed by another writer: read it again.", key=key
        )


def _info(key: str, header: Header, status: os.stat_result) -> ObjectInfo:
    updated_at = datetime.fromtimestamp(status.st_mtime, UTC)
    return ObjectInfo(key, header.size, updated_at, header.generation)


def _chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


@contextmanager
def _existing(key: str) -> Iterator[None]:
    """Say that an object is missing."""
    try:
        yield
    except FileNotFoundError:
        raise ObjectNotFound(f"Object storage holds nothing under {key!r}.", key=key) from None


@contextmanager
def _failures(key: str) -> Iterator[None]:
    """Say what failed."""
    try:
        yield
    except OSError as error:
        raise StorageFailure(
            f"Object storage failed at {key!r} ({error.strerror}): check its disk's free space "
            "and permissions.",
            key=key,
        ) from error
