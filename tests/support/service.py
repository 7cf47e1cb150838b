"""The service as a process of its own, as `scripts/up` starts it."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import docker
import httpx2
from tests.support.runtimes import IMAGE, Bench

from orchestrator.runtimes.processes import Process, process_of

STOP_SECONDS = 60.0
ANNOUNCEMENT = "Berth listens on "
# What a developer has set must not reach the services of tests.
OURS = ("BERTH_", "DATABASE_URL", "GPT_OSS_URL", "LLM_")


def passable_directory(prefix: str = "berth-") -> Path:
    """A directory that the database and the sandboxes of root can pass through."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    directory.chmod(0o711)
    return directory


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without settings of Berth, and some of the test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**kept, "PYTHONSAFEPATH": "1", **(extra or {})}


@dataclass(slots=True)
class Service:
    """A service that may be started and stopped several times on one data directory.

    Args:
        runtime: `docker` or `sandbox`.
        allow_paths: Where local repositories may lie.
        settings: Environment variables.
    """

    runtime: str
    allow_paths: Sequence[Path] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    directory: Path = field(default_factory=passable_directory)
    deployment: str = field(default_factory=lambda: f"a-{uuid.uuid4().hex[:8]}")
    url: str = ""
    _process: subprocess.Popen[str] | None = None

    @property
    def data_dir(self) -> Path:
        """Where it keeps its state."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """What it said on standard error since it was first started."""
        return self.directory / "log"

    @property
    def process(self) -> subprocess.Popen[str]:
        """The running process."""
        assert self._process is not None
        return self._process

    def command(self, port: int = 0) -> list[str]:
        """The command line."""
        allowed = [part for path in self.allow_paths for part in ("--allow-path", str(path))]
        return [
            *(sys.executable, "-m", "orchestrator"),
            *("--port", str(port), "--data", str(self.data_dir), "--runtime", self.runtime),
            *allowed,
        ]

    def launch(self, port: int = 0) -> subprocess.Popen[str]:
        """Start a process without waiting until it is ready."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command(port),
                env=clean_environment(
                    {
                        "BERTH_AGENT_IMAGE": IMAGE,
                        **self.settings,
                        "BERTH_DEPLOYMENT": self.deployment,
                    }
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def start(self, port: int = 0) -> "Service":
        """Start it and wait until it listens."""
        self._process = self.launch(port)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith(ANNOUNCEMENT), self.log.read_text()
        self.url = line.removeprefix(ANNOUNCEMENT).split()[0]
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for the end; returns the exit code."""
        code = self.process.wait(seconds)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def client(self, timeout_seconds: float = 60.0) -> httpx2.AsyncClient:
        """A client of its API."""
        # Without certificates, since loading them takes longer than many a test.
        return httpx2.AsyncClient(
            base_url=self.url, timeout=timeout_seconds, trust_env=False, verify=False
        )

    def family(self) -> set[Process]:
        """The process, its descendants, and all that were started for this data directory."""
        first = process_of(self.process.pid)
        found = set() if first is None else {first, *_descendants(first)}
        for process in self._mentioned():
            found |= {process, *_descendants(process)}
        return found

    def leftovers(self, family: set[Process]) -> list[str]:
        """What still runs of it; `family` is what ran before it was stopped."""
        alive = {process for process in family if process.is_alive()} | set(self._mentioned())
        left = [_command_line(process.pid) for process in alive]
        left += [path for path in _bound_sockets() if path.startswith(str(self.directory))]
        return left + self._running_containers()

    def files(self) -> set[str]:
        """Mirrors, sandboxes, sockets and objects in the data directory."""
        patterns = ("mirrors/*", "sandboxes/repo-*", "run/repo-*", "objects/objects/**/*=")
        return {str(path) for pattern in patterns for path in self.data_dir.glob(pattern)}

    async def task_counts(self) -> dict[str, int]:
        """How many tasks are recorded in each status, read from the database itself."""
        connection = await asyncpg.connect(
            host=str((self.data_dir / "postgres" / "run").resolve()),
            user="berth",
            database="postgres",
        )
        try:
            rows = await connection.fetch("SELECT status, count(*) FROM tasks GROUP BY status")
        finally:
            await connection.close()
        return {row["status"]: row["count"] for row in rows}

    def remove(self) -> None:
        """End it if it still runs and remove all that it made."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        if self.data_dir.exists():
            # In a thread of its own, since the caller's may have a running loop.
            with ThreadPoolExecutor(1) as pool:
                bench = Bench(self.runtime, self.deployment, self.data_dir)
                pool.submit(asyncio.run, bench.clean()).result()
        shutil.rmtree(self.directory)

    def _mentioned(self) -> Iterator[Process]:
        """Processes that have the directory in their command line or the deployment's name."""
        marks = (os.fsencode(self.directory), f"BERTH_DEPLOYMENT={self.deployment}".encode())
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue  # it has ended meanwhile
            process = process_of(int(entry.name))
            is_ours = any(mark in said for mark in marks)
            if is_ours and process is not None and process.is_alive():
                yield process

    def _running_containers(self) -> list[str]:
        if self.runtime != "docker":
            return []
        client = docker.from_env()
        try:
            found = client.containers.list(filters={"label": f"berth.deployment={self.deployment}"})
            return [str(container.name) for container in found]
        finally:
            client.close()


@contextmanager
def running_service(
    runtime: str,
    allow_paths: Sequence[Path] = (),
    settings: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """A service that is started, and at the end stopped if need be, and removed."""
    service = Service(runtime, allow_paths, settings or {})
    try:
        yield service.start()
    finally:
        service.remove()


def _descendants(process: Process) -> Iterator[Process]:
    for child in process.children():
        yield child
        yield from _descendants(child)


def _command_line(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        text = b"ended meanwhile"
    return f"{pid}: {text.decode(errors='replace')}"


def _bound_sockets() -> list[str]:
    lines = Path("/proc/net/unix").read_text().splitlines()
    return [fields[7] for fields in map(str.split, lines) if len(fields) > 7]
