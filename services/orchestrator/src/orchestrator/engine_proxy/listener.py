"""The unix socket that the proxy listens on."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ConfigurationError

BACKLOG = 128
PRIVATE = 0o177


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen.

    Args:
        path: The socket's path.
        mode: Its permissions.
        owner: Its user and group by number; None to leave them.
    """

    path: Path
    mode: int
    owner: tuple[int, int] | None = None


@contextmanager
def listening(place: Place) -> Iterator[socket.socket]:
    """A socket that listens, and is gone afterwards.

    Raises:
        ConfigurationError: It cannot be made there, or somebody listens there already.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(listener, place)
        try:
            yield listener
        finally:
            place.path.unlink(missing_ok=True)
    finally:
        listener.close()


def _bind(listener: socket.socket, place: Place) -> None:
    try:
        _clear(place.path)
        before = os.umask(PRIVATE)  # nobody may connect before the owner and the mode are set
        try:
            listener.bind(str(place.path))
        finally:
            os.umask(before)
        place.path.chmod(place.mode)  # first, for it is the owner's right
        if place.owner is not None:
            os.chown(place.path, *place.owner)
        listener.listen(BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"The proxy cannot listen on {place.path} ({error.strerror or error}). Name another "
            "path with --listen, in a directory that exists."
        ) from None


def _clear(path: Path) -> None:
    """Remove what an earlier process has left.

    Raises:
        OSError: It is no socket, or somebody listens on it.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(None, "there is something else")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
        raise FileExistsError(None, "somebody listens there already")
