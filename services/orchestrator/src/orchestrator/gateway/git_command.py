"""Runs git on repositories nobody vouches for: clean environment, bounded time, output, memory."""

import asyncio
import contextlib
import os
import re
import resource
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from orchestrator.errors import ConfigurationError

MIB = 1024**2
GIB = 1024**3
STDERR_KEPT = 16 * 1024
CHUNK = 256 * 1024
VERSION_SECONDS = 30.0
WATCH_SECONDS = 0.1

# curl's host pinning came to git with 2.37; without it a name could be resolved a second time.
PINNING_VERSION = (2, 37)
MINIMUM_VERSION = (2, 31)

_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE")

# Old histories are full of these. They harm nobody, and refusing them would refuse Flask and
# requests; what fsck finds beyond them (crafted paths, .gitmodules, broken objects) is refused.
_HARMLESS_FLAWS = (
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badName",
    "badTagName",
    "badTimezone",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "missingTaggerEntry",
    "multipleAuthors",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
)

# A file and not `-c` options: git drops those when it starts the serving side of a local fetch.
_CONFIG = """\
[core]
	hooksPath = /dev/null
	fsmonitor = false
	bigFileThreshold = 32m
[credential]
	helper =
[fetch]
	unpackLimit = 1
	recurseSubmodules = false
[gc]
	auto = 0
[http]
	followRedirects = false
	lowSpeedLimit = 1
	lowSpeedTime = 60
	proxy =
[maintenance]
	auto = false
[pack]
	windowMemory = 64m
[protocol]
	allow = never
[safe]
	directory = *
[submodule]
	recurse = false
[transfer]
	bundleURI = false
	fsckObjects = true
[fetch "fsck"]
"""


Guard = Callable[[], Coroutine[None, None, None]]
"""Runs beside git and returns when git has to be stopped."""


class Ended(StrEnum):
    """How a git process came to its end."""

    EXITED = "exited"
    TIMED_OUT = "timed_out"
    TOO_MUCH_OUTPUT = "too_much_output"
    TOO_MUCH_MEMORY = "too_much_memory"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class GitOutcome:
    """What a git process did; `stderr` is its last part and may hold anything."""

    ended: Ended
    returncode: int
    stdout: bytes
    stderr: str

    @property
    def ok(self) -> bool:
        """True if git ended by itself and reports success."""
        return self.ended is Ended.EXITED and self.returncode == 0


class Git:
    """Runs git commands.

    Args:
        directory: Holds git's configuration and its empty home; made on first use.
        environment: Where certificate settings are taken from; everything else in it is ignored.
        executable: The git program.
        max_memory_bytes: Most memory of their own that one command's processes may hold.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        executable: str = "git",
        max_memory_bytes: int = GIB,
    ) -> None:
        self._max_memory = max_memory_bytes
        directory = directory.absolute()
        self._home = directory / "home"
        self._config = directory / "config"
        self._executable = executable
        self._environment = {
            "PATH": environment.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "LC_ALL": "C",
            "HOME": str(self._home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self._config),
            # The data directory may lie in somebody's checkout, whose settings are not ours.
            "GIT_CEILING_DIRECTORIES": str(directory),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "false",
            "GIT_NO_LAZY_FETCH": "1",
        } | {name: environment[name] for name in _CERTIFICATE_VARIABLES if name in environment}
        self._version: tuple[int, int] | None = None
        self._preparing = asyncio.Lock()

    async def version(self) -> tuple[int, int]:
        """git's version; the first call also writes its configuration.

        Raises:
            ConfigurationError: git is missing or too old.
        """
        async with self._preparing:
            if self._version is None:
                await asyncio.to_thread(self._write_files)
                self._version = await self._ask_version()
            return self._version

    async def run(
        self,
        *arguments: str,
        timeout_seconds: float,
        directory: Path | None = None,
        protocol: str = "",
        stdin: bytes = b"",
        max_output: int = MIB,
        until: Guard | None = None,
    ) -> GitOutcome:
        """Run one git command to its end.

        Args:
            arguments: What follows `git`.
            timeout_seconds: After this its process group is killed.
            directory: The repository to run in.
            protocol: The only transport git may use; none by default.
            stdin: What git reads.
            max_output: Most bytes of output; past it the process group is killed.
            until: Runs beside git; if it returns first, the process group is killed.
        """
        await self.version()
        process = await self._start(arguments, directory, protocol)
        exchange = _exchange(process, stdin, max_output)
        guards = {Ended.TOO_MUCH_MEMORY: partial(_hungry, process.pid, self._max_memory)}
        if until is not None:
            guards[Ended.STOPPED] = until
        return await _supervised(process, exchange, timeout_seconds, guards)

    @contextlib.asynccontextmanager
    async def stream(
        self, *arguments: str, directory: Path, stdin: bytes
    ) -> AsyncIterator["GitStream"]:
        """Run one git command whose output is read piece by piece; leaving kills it."""
        await self.version()
        process = await self._start(arguments, directory, "")
        stream = GitStream(process, stdin)
        try:
            yield stream
        finally:
            await stream.close()

    async def _start(
        self, arguments: tuple[str, ...], directory: Path | None, protocol: str
    ) -> asyncio.subprocess.Process:
        where = () if directory is None else (f"--git-dir={directory}",)
        try:
            return await asyncio.create_subprocess_exec(
                self._executable,
                *where,
                *arguments,
                cwd=self._home,
                env=self._environment | {"GIT_ALLOW_PROTOCOL": protocol},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=CHUNK,
            )
        except FileNotFoundError:
            raise ConfigurationError("git was not found: install git 2.37 or newer.") from None

    async def _ask_version(self) -> tuple[int, int]:
        process = await self._start(("version",), None, "")
        outcome = await _supervised(process, _exchange(process, b"", MIB), VERSION_SECONDS, {})
        found = re.search(rb"(\d+)\.(\d+)", outcome.stdout)
        if found is None:
            raise ConfigurationError("git does not tell its version: install git 2.37 or newer.")
        version = int(found[1]), int(found[2])
        if version < MINIMUM_VERSION:
            raise ConfigurationError("git is too old: install git 2.37 or newer.")
        return version

    def _write_files(self) -> None:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        flaws = "".join(f"\t{flaw} = ignore\n" for flaw in _HARMLESS_FLAWS)
        fresh = self._config.with_suffix(f".{os.getpid()}")
        fresh.write_text(_CONFIG + flaws)
        fresh.replace(self._config)


class GitStream:
    """A running git command whose output is read piece by piece."""

    def __init__(self, process: asyncio.subprocess.Process, stdin: bytes) -> None:
        self._process = process
        self._feeding = asyncio.create_task(_feed(process, stdin))
        self._errors = asyncio.create_task(_tail(_reader(process.stderr)))

    async def chunks(self) -> AsyncIterator[bytes]:
        """The output; git waits while nobody reads."""
        output = _reader(self._process.stdout)
        while chunk := await output.read(CHUNK):
            yield chunk

    async def outcome(self) -> GitOutcome:
        """How git ended; call it when the output has been read."""
        errors = await self._errors
        return GitOutcome(Ended.EXITED, await self._process.wait(), b"", errors)

    async def close(self) -> None:
        """Kill git if it still runs."""
        self._feeding.cancel()
        self._errors.cancel()
        await _end(self._process)
        await asyncio.gather(self._feeding, self._errors, return_exceptions=True)


async def _supervised(
    process: asyncio.subprocess.Process,
    exchange: Coroutine[None, None, GitOutcome],
    timeout_seconds: float,
    guards: Mapping[Ended, Guard],
) -> GitOutcome:
    """What the exchange yields, unless time runs out or a guard returns before that."""
    outcome = asyncio.create_task(exchange)
    watching = {asyncio.create_task(guard()): ended for ended, guard in guards.items()}
    waited = {outcome, *watching}
    try:
        await asyncio.wait(waited, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if outcome.done():
            return await outcome
        for task, ended in watching.items():
            if task.done():
                await task
                return GitOutcome(ended, -1, b"", "")
        return GitOutcome(Ended.TIMED_OUT, -1, b"", "")
    finally:
        for waiting in waited:
            waiting.cancel()
        await _end(process)
        await asyncio.gather(*waited, return_exceptions=True)


async def _hungry(pid: int, limit: int) -> None:
    """Return once the process and what it started hold more than `limit` bytes of memory.

    git keeps a whole list of references in memory before it prints any, so that a server which
    never ends its list would fill the machine.
    """
    held = 0
    while held <= limit:
        await asyncio.sleep(WATCH_SECONDS)
        held = memory_of(pid)


def memory_of(pid: int) -> int:
    """Bytes of its own that a process and its descendants hold; 0 where there is no `/proc`."""
    held, waiting = 0, [pid]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        # Processes end while they are counted.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            _, resident, shared = (process / "statm").read_text().split()[:3]
            held += (int(resident) - int(shared)) * resource.getpagesize()
            children = (process / "task" / process.name / "children").read_text()
            waiting.extend(int(child) for child in children.split())
    return held


async def _exchange(
    process: asyncio.subprocess.Process, stdin: bytes, max_output: int
) -> GitOutcome:
    errors = asyncio.create_task(_tail(_reader(process.stderr)))
    feeding = asyncio.create_task(_feed(process, stdin))
    try:
        output = await _head(_reader(process.stdout), max_output)
        if output is None:
            return GitOutcome(Ended.TOO_MUCH_OUTPUT, -1, b"", "")
        await feeding
        return GitOutcome(Ended.EXITED, await process.wait(), output, await errors)
    finally:
        feeding.cancel()
        errors.cancel()
        await asyncio.gather(feeding, errors, return_exceptions=True)


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    if process.stdin is None:
        raise RuntimeError("git was started without a pipe")
    # git may end without reading all of it; its exit status then tells why.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()


async def _head(reader: asyncio.StreamReader, limit: int) -> bytes | None:
    """All of the output, or None as soon as it is longer than `limit` bytes."""
    output = bytearray()
    while chunk := await reader.read(CHUNK):
        output += chunk
        if len(output) > limit:
            return None
    return bytes(output)


async def _tail(reader: asyncio.StreamReader) -> str:
    """The last part of the output; the rest is read and dropped."""
    kept = b""
    while chunk := await reader.read(CHUNK):
        kept = (kept + chunk)[-STDERR_KEPT:]
    return kept.decode(errors="replace")


def _reader(pipe: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if pipe is None:
        raise RuntimeError("git was started without a pipe")
    return pipe


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the process with all that it started, and reap it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
