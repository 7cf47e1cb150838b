"""The data directory: made where it is missing, and used by one orchestrator at a time."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import ConfigurationError

LOCK = "lock"
EXECUTOR = "executor"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the data directory for ourselves; the lock ends with us, however we end.

    Raises:
        ConfigurationError: It cannot be made or written, or another orchestrator holds it.
    """
    try:
        # Passable, because the database and the sandboxes of root run under other users.
        path.mkdir(parents=True, exist_ok=True, mode=0o711)
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"The data directory {path} cannot be written ({error.strerror}). Name another one "
            "with --data (or BERTH_DATA_DIR), or let this user write there."
        ) from None
    try:
        _lock(path, descriptor)
        yield
    finally:
        os.close(descriptor)


def executor_id(path: Path) -> str:
    """The name under which this data directory's orchestrator takes tasks; it survives restarts."""
    file = path / EXECUTOR
    if not file.exists():
        building = path / f"{EXECUTOR}.new"
        building.write_text(secrets.token_hex(8))
        building.replace(file)
    return file.read_text()


def _lock(path: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        raise ConfigurationError(
            f"The data directory {path} is already in use by process {holder}. Stop that one, or "
            "name another directory with --data (or BERTH_DATA_DIR)."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
