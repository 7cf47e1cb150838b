"""A Postgres of our own, for when no `DATABASE_URL` is set."""

import asyncio
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import structlog

from orchestrator.errors import ConfigurationError, DatabaseUnavailable
from orchestrator.storage.postgres.binaries import (
    Installation,
    blocking_directory,
    choose_installation,
    copy_installation,
    find_installations,
)
from orchestrator.storage.postgres.cluster import (
    Account,
    Cluster,
    choose_account,
    locked,
    make_base,
    make_data,
    make_socket_directory,
    remove_socket_directory,
)
from orchestrator.storage.postgres.leftovers import POSTMASTER_FILE, clear_leftovers

USER = "berth"
DATABASE = "postgres"
MAX_CONNECTIONS = 100

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_START_SECONDS = 60.0  # crash recovery of a busy database takes its time
_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.005
# Waits before the restarts of a server that keeps ending. The last one is kept for good: what ends
# it, above all a full disk, may be mended while we run.
_RESTART_DELAYS = (0.0, 0.2, 1.0, 5.0, 15.0)
_RESTART_WINDOW_SECONDS = 60.0
_STATUS_LINES = 8
_LOG_TAIL = 1_500

# Nothing of our own environment reaches the server: PGDATA or PGOPTIONS would change it, and
# secrets have no business there.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": str(MAX_CONNECTIONS),
    "log_checkpoints": "off",
    "log_min_error_statement": "panic",  # statements stay out of the log
}
_LOCALES = ("C.UTF-8", "C")


class EmbeddedPostgres:
    """One Postgres server on a unix socket, owned by this process.

    It keeps its files under `<data_dir>/postgres`, is started again when it dies, and ends with
    us however we end. Only our own user (for root: also the unprivileged user it runs under) can
    reach the socket; there is no password and no TCP port.

    Args:
        data_dir: The orchestrator's data directory; made if missing.
        durable: False leaves out the syncs to disk, for tests: a power cut may then lose data.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self._cluster = Cluster(data_dir.resolve() / "postgres")
        self._durable = durable
        self._held = ExitStack()
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Start the server, making the database on first use; returns its address.

        A server left over from a killed orchestrator is shut down first.

        Raises:
            ConfigurationError: The data directory is in use, out of reach, or of another version.
            DatabaseUnavailable: The server did not come up; the text ends with its log.
        """
        if self._process is not None:
            raise RuntimeError("the embedded Postgres was started already")
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Shut the server down and let go of the data directory; nothing happens if it is down."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
            self._watcher = None
        try:
            if self._process is not None:
                await _end(self._process)
                self._process = None
                # The supervisor may have been killed apart from its server.
                await clear_leftovers(self._cluster.data)
        finally:
            self._held.close()

    async def _start(self) -> str:
        cluster = self._cluster
        await asyncio.to_thread(make_base, cluster)
        self._held.enter_context(locked(cluster))
        if await clear_leftovers(cluster.data):
            structlog.get_logger().warning("postgres.leftover_stopped")
        account = choose_account(cluster)
        installation = await asyncio.to_thread(_reachable, cluster, account)
        if cluster.major is None:
            await _initialise(cluster, account, installation)
        socket_directory = make_socket_directory(cluster, account)
        self._held.callback(remove_socket_directory, cluster)
        command = self._command(installation, socket_directory)
        self._process = await _launch(cluster, account, command)
        self._watcher = asyncio.create_task(self._watch(account, command))
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(socket_directory), safe='/')}"

    def _command(self, installation: Installation, socket_directory: Path) -> list[str]:
        settings = dict(_SETTINGS)
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = str(installation.program("postgres"))
        return [server, "-D", str(self._cluster.data), "-k", str(socket_directory), *options]

    async def _watch(self, account: Account, command: list[str]) -> None:
        """Start the server again when it ends unasked, with pauses when that keeps happening."""
        loop = asyncio.get_running_loop()
        restarts: list[float] = []
        while self._process is not None:
            code = await self._process.wait()
            now = loop.time()
            restarts = [at for at in restarts if now - at < _RESTART_WINDOW_SECONDS]
            await asyncio.sleep(_RESTART_DELAYS[min(len(restarts), len(_RESTART_DELAYS) - 1)])
            restarts.append(now)
            structlog.get_logger().warning("postgres.restarting", exit_code=code)
            try:
                await clear_leftovers(self._cluster.data)
                self._process = await _launch(self._cluster, account, command)
            except (DatabaseUnavailable, OSError) as error:
                # The process that just failed has ended too, so the next turn tries again.
                structlog.get_logger().error("postgres.restart_failed", reason=str(error))


def _reachable(cluster: Cluster, account: Account) -> Installation:
    """The Postgres to use, copied under the data directory if its user could not reach it."""
    installation = choose_installation(find_installations(), cluster.major)
    if account.is_ours or blocking_directory(installation.home / "bin") is None:
        return installation
    return copy_installation(installation, cluster.base)


async def _initialise(cluster: Cluster, account: Account, installation: Installation) -> None:
    """Make the database, in the best locale this machine has.

    It is made under another name and then moved, so that an interrupted first start leaves
    nothing that looks like a database.
    """
    for locale in _LOCALES:
        directory = await asyncio.to_thread(make_data, cluster, account)
        process = await _supervised(
            cluster,
            account,
            [
                str(installation.program("initdb")),
                *("-D", str(directory)),
                *("-U", USER),
                *("-E", "UTF8"),
                *("-A", "trust"),
                f"--locale={locale}",
                "--no-sync",
                "--no-instructions",
            ],
        )
        try:
            code = await asyncio.wait_for(process.wait(), _START_SECONDS)
        finally:
            await _end(process)
        if code == 0:
            directory.rename(cluster.data)
            return
        if "invalid locale" not in _log_tail(cluster):
            break
    raise ConfigurationError(f"The embedded database could not be made: {_log_tail(cluster)}")


async def _launch(
    cluster: Cluster, account: Account, command: list[str]
) -> asyncio.subprocess.Process:
    """Start the server and wait until it takes connections."""
    before = _status(cluster)
    process = await _supervised(cluster, account, command)
    try:
        async with asyncio.timeout(_START_SECONDS):
            # A crashed server leaves its status file, so "ready" counts only in a new one.
            while (status := _status(cluster)) == before or status[-1:] != ("ready",):
                if process.returncode is not None:
                    break
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return process
    except TimeoutError:
        pass
    except BaseException:
        await _end(process)
        raise
    await _end(process)
    raise DatabaseUnavailable(f"The embedded Postgres did not start: {_log_tail(cluster)}")


def _status(cluster: Cluster) -> tuple[str, ...]:
    """The lines of the server's status file once it is whole; the last one says `ready`."""
    try:
        text = (cluster.data / POSTMASTER_FILE).read_text()
    except FileNotFoundError:
        return ()
    lines = tuple(line.strip() for line in text.splitlines())
    return lines if len(lines) == _STATUS_LINES else ()


async def _supervised(
    cluster: Cluster, account: Account, command: list[str]
) -> asyncio.subprocess.Process:
    """Run a command that ends when our end of its standard input does."""
    with cluster.log.open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_SUPERVISOR)),
            *(str(account.uid), str(account.gid), str(_GRACE_SECONDS)),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            env=_ENVIRONMENT,
            # Ctrl-C in a terminal reaches a whole session; the database must end last.
            start_new_session=True,
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask a supervised command to end and wait for it."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        # The supervisor itself allows for the grace and then shuts down at once.
        await asyncio.wait_for(process.wait(), 2 * _GRACE_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def _log_tail(cluster: Cluster) -> str:
    text = cluster.log.read_text(errors="replace") if cluster.log.exists() else ""
    return text[-_LOG_TAIL:].strip() or "it wrote no log."
