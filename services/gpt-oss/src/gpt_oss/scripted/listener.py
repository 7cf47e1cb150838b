"""The listener: the process around the application; its socket, its parent, its end."""

import ctypes
import errno
import os
import signal
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

Location = dict[str, str]
"""Where a server is reached: `{"url": ...}` or `{"uds": ...}`."""

_PR_SET_PDEATHSIG = 1
_BACKLOG = 512
_KEEP_ALIVE_SECONDS = 120
_SHUTDOWN_SECONDS = 1


class ParentGone(RuntimeError):
    """The parent process ended before it could be watched."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a unix socket if `uds` is given, else a host and port (0: any free)."""

    host: str = "127.0.0.1"
    port: int = 0
    uds: Path | None = None


def bind(address: Address) -> socket.socket:
    """Return a bound socket.

    A unix socket is private to its user, and one that a dead process left is replaced.

    Raises:
        OSError: The address is in use or cannot be had.
    """
    if address.uds is not None:
        return _bind_unix(address.uds)
    family, kind, protocol, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM
    )[0]
    # With the protocol named, asyncio turns Nagle's delay off on each connection.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except OSError:
        listener.close()
        raise
    return listener


def location(listener: socket.socket) -> Location:
    """Return where a bound socket is reached."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return {"uds": name}
    host = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
    return {"url": f"http://{host}:{name[1]}/v1"}


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process (SIGTERM) when its parent ends. Linux only.

    The kernel's parent is the *thread* that started this process: start it from one that stays.

    Args:
        parent: Process id of the parent, read before this call.

    Raises:
        ParentGone: The parent ended before the kernel watched it.
        OSError: The kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent:
        raise ParentGone(f"the parent process {parent} is gone")


def serve(app: Starlette, listener: socket.socket, ready: Callable[[Location], None]) -> None:
    """Serve until SIGTERM or SIGINT; then remove the unix socket, if it was one.

    Args:
        app: The application.
        listener: A bound socket.
        ready: Called with the `location` once requests are accepted and signals heeded.
    """
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    where = location(listener)
    _ReadyServer(config, where, ready).run(sockets=[listener])


class _ReadyServer(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, where: Location, ready: Callable[[Location], None]
    ) -> None:
        super().__init__(config)
        self._where = where
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready(self._where)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Not after `run`: that ends by raising the signal again, which ends the process.
        if "uds" in self._where:
            Path(self._where["uds"]).unlink(missing_ok=True)
        await super().shutdown(sockets)


def _bind_unix(path: Path) -> socket.socket:
    _remove_dead_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_dead_socket(path: Path) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(errno.EEXIST, "exists and is not a socket", str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise OSError(errno.EADDRINUSE, "another process listens here", str(path))
        path.unlink()
