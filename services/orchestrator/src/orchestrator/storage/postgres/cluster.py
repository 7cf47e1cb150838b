"""The files of an embedded Postgres under the data directory, and the user who owns them.

postgres/           ours; anyone may pass through
├── lock            held while an orchestrator uses the database; has its process id
├── log             what the server said since it was last started
├── data/           the database; the server's user only
├── run/            the server's socket; a link when the path would be too long for a socket
└── bin-<release>/  the programs, where the installed ones lie out of the user's reach
"""

import fcntl
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ConfigurationError
from orchestrator.storage.postgres.binaries import blocking_directory
from orchestrator.storage.postgres.supervisor import KEEP

SOCKET_NAME = ".s.PGSQL.5432"

# The kernel's limit is 108 bytes with the final zero on Linux and 104 on macOS.
_MAX_SOCKET_PATH = 103
_UNPRIVILEGED_USERS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """The user a server runs under; both `supervisor.KEEP` for the user we are."""

    uid: int = KEEP
    gid: int = KEEP

    @property
    def is_ours(self) -> bool:
        """True if the server runs under our own user."""
        return self.uid == KEEP


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the parts lie."""

    base: Path

    @property
    def data(self) -> Path:
        """The database's directory."""
        return self.base / "data"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.base / "log"

    @property
    def run(self) -> Path:
        """The socket's directory or a link to it."""
        return self.base / "run"

    @property
    def major(self) -> int | None:
        """The Postgres version that made the data, or None if there is no data yet."""
        try:
            return int((self.data / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None


def choose_account(cluster: Cluster) -> Account:
    """Our own user, or for root, whom Postgres refuses, an unprivileged one that exists.

    Raises:
        ConfigurationError: We are root and this machine has no such user.
    """
    if os.geteuid() != 0:
        return Account()
    if cluster.data.exists():
        owner = cluster.data.stat()
        return Account(owner.st_uid, owner.st_gid)
    for name in _UNPRIVILEGED_USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(user.pw_uid, user.pw_gid)
    raise ConfigurationError(
        "Postgres does not run as root, and this machine has neither a user 'postgres' nor "
        "'nobody': add one, start Berth as another user, or set DATABASE_URL."
    )


def make_base(cluster: Cluster) -> None:
    """Make the directory that holds everything.

    Raises:
        ConfigurationError: It cannot be made, or as root, others cannot reach it.
    """
    base = cluster.base
    try:
        base.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            base.chmod(0o755)
    except OSError as error:
        raise ConfigurationError(
            f"The directory {base} for the embedded database cannot be made "
            f"({error.strerror}): choose another data directory."
        ) from error
    blocking = blocking_directory(base) if os.geteuid() == 0 else None
    if blocking:
        raise ConfigurationError(
            f"Postgres does not run as root, and no other user can pass through {blocking}, so "
            "the database cannot lie below it: choose another data directory (--data), such as "
            "/var/lib/berth, or set DATABASE_URL."
        )


@contextmanager
def locked(cluster: Cluster) -> Iterator[None]:
    """Hold the database for ourselves; the lock ends with us, however we end.

    Raises:
        ConfigurationError: Another process holds it, or it belongs to another user.
    """
    try:
        descriptor = os.open(cluster.base / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError:
        raise ConfigurationError(
            f"The embedded database in {cluster.base} belongs to another user: start Berth as "
            "that user, choose another data directory (--data), or set DATABASE_URL."
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise ConfigurationError(
                f"The embedded database in {cluster.base} is already in use by process {holder}: "
                "end that one, choose another data directory, or share a Postgres by setting "
                "DATABASE_URL for both."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def make_data(cluster: Cluster, account: Account) -> Path:
    """An empty directory for `initdb`, beside the place its result is then moved to."""
    remove_unfinished(cluster)
    path = Path(tempfile.mkdtemp(prefix="data-unfinished-", dir=cluster.base))
    _give(path, account)
    return path


def remove_unfinished(cluster: Cluster) -> None:
    """Remove what an interrupted first start left behind."""
    for path in cluster.base.glob("data-unfinished-*"):
        shutil.rmtree(path)


def make_socket_directory(cluster: Cluster, account: Account) -> Path:
    """A fresh directory for the socket that only the server's user and root may enter."""
    remove_socket_directory(cluster)
    if len(os.fsencode(cluster.run / SOCKET_NAME)) <= _MAX_SOCKET_PATH:
        cluster.run.mkdir(mode=0o700)
        directory = cluster.run
    else:
        directory = Path(tempfile.mkdtemp(prefix="berth-"))
        cluster.run.symlink_to(directory)
    _give(directory, account)
    return directory


def remove_socket_directory(cluster: Cluster) -> None:
    """Remove the socket's directory, wherever it lies."""
    if cluster.run.is_symlink():
        target = cluster.run.readlink()
        if target.exists():
            shutil.rmtree(target)
        cluster.run.unlink()
    elif cluster.run.exists():
        shutil.rmtree(cluster.run)


def _give(path: Path, account: Account) -> None:
    if not account.is_ours:
        os.chown(path, account.uid, account.gid)
