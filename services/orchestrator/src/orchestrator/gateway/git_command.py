"""Runs git on repositories nobody vouches for, in an environment of its own."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from orchestrator.errors import ConfigurationError
from orchestrator.gateway.access import NO_ACCESS, Access
from orchestrator.gateway.git_process import (
    CHUNK,
    Ended,
    GitOutcome,
    Guard,
    exchange,
    feed,
    hungry,
    kill,
    reader,
    reap,
    supervised,
    tail,
)

MIB = 1024**2
GIB = 1024**3
VERSION_SECONDS = 30.0
NOTHING: Mapping[str, str] = MappingProxyType({})

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

HARMLESS = ",".join(f"{flaw}=ignore" for flaw in _HARMLESS_FLAWS)
"""What `index-pack --strict=` is not to refuse."""

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
        source: BinaryIO | None = None,
        access: Access = NO_ACCESS,
        environment: Mapping[str, str] = NOTHING,
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
            source: An open file that git reads from its position on, instead of `stdin`.
            access: Credentials for the remote; they are taken out of what git says.
            environment: Further variables.
        """
        await self.version()
        given = {**environment, **access.environment}
        process = await self._start(arguments, directory, protocol, given, source)
        guards: dict[Ended, Guard] = {
            Ended.TOO_MUCH_MEMORY: partial(hungry, process.pid, self._max_memory)
        }
        if until is not None:
            guards[Ended.STOPPED] = until
        talk = exchange(process, stdin, max_output)
        outcome = await supervised(process, talk, timeout_seconds, guards)
        return replace(outcome, stderr=access.hidden(outcome.stderr))

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
        self,
        arguments: tuple[str, ...],
        directory: Path | None,
        protocol: str,
        given: Mapping[str, str] = NOTHING,
        source: BinaryIO | None = None,
    ) -> asyncio.subprocess.Process:
        where = () if directory is None else (f"--git-dir={directory}",)
        try:
            return await asyncio.create_subprocess_exec(
                self._executable,
                *where,
                *arguments,
                cwd=self._home,
                env={**self._environment, **given, "GIT_ALLOW_PROTOCOL": protocol},
                stdin=asyncio.subprocess.PIPE if source is None else source,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=CHUNK,
            )
        except FileNotFoundError:
            raise ConfigurationError("git was not found: install git 2.37 or newer.") from None

    async def _ask_version(self) -> tuple[int, int]:
        process = await self._start(("version",), None, "")
        outcome = await supervised(process, exchange(process, b"", MIB), VERSION_SECONDS, {})
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
        self._feeding = asyncio.create_task(feed(process, stdin))
        self._errors = asyncio.create_task(tail(reader(process.stderr)))

    async def chunks(self) -> AsyncIterator[bytes]:
        """The output; git waits while nobody reads."""
        output = reader(self._process.stdout)
        while chunk := await output.read(CHUNK):
            yield chunk

    async def outcome(self) -> GitOutcome:
        """How git ended; call it when the output has been read."""
        errors = await self._errors
        return GitOutcome(Ended.EXITED, await self._process.wait(), b"", errors)

    async def close(self) -> None:
        """Kill git if it still runs."""
        kill(self._process)
        self._feeding.cancel()
        self._errors.cancel()
        await asyncio.gather(self._feeding, self._errors, return_exceptions=True)
        await reap(self._process)
