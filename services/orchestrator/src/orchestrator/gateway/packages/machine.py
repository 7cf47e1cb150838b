"""This machine, as far as its package managers and their configuration can be asked."""

import asyncio
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

Run = Callable[[Sequence[str]], Awaitable[str | None]]
"""Runs a client and returns what it prints; None if it is missing or fails."""

Fetch = Callable[[str], Awaitable[str | None]]
"""Reads a small document of the web; None if it cannot be had."""

CLIENT_SECONDS = 20.0
MAX_DOCUMENT_BYTES = 64 * 1024
# A client needs its own configuration, which may lie in variables, and no other secret of ours.
_CLIENTS_VARIABLES = re.compile(
    r"(PATH|HOME|USER|LOGNAME|TMPDIR|LANG|LC_\w+|XDG_\w+|VIRTUAL_ENV|PYTHON\w*|APT_CONFIG|PREFIX"
    r"|(PIP|NPM|RUSTUP)_\w+|GO(ENV|FLAGS|NOPROXY|NOSUMDB|PATH|PRIVATE|PROXY|ROOT|SUMDB))",
    re.IGNORECASE,
)


async def run_client(command: Sequence[str]) -> str | None:
    """`Run` as a child process of ours."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=client_environment(os.environ),
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(CLIENT_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        output = b""
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return output.decode(errors="replace") if process.returncode == 0 else None


def client_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a client is given."""
    return {
        name: value for name, value in environment.items() if _CLIENTS_VARIABLES.fullmatch(name)
    }


async def fetch_document(url: str) -> str | None:
    """`Fetch` over the network; redirects are not followed."""
    content = b""
    try:
        async with (
            httpx2.AsyncClient(timeout=CLIENT_SECONDS) as client,
            client.stream("GET", url) as response,
        ):
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_DOCUMENT_BYTES:
                    return None
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return None
    return content.decode(errors="replace") if response.is_success else None


@dataclass(frozen=True, slots=True)
class Machine:
    """What finders may ask.

    Args:
        run: Runs clients.
        fetch: Reads documents.
        environment: Our variables.
    """

    run: Run = run_client
    fetch: Fetch = fetch_document
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    @property
    def home(self) -> Path:
        """Where the configuration of users lies."""
        return Path(self.environment.get("HOME") or Path.home())

    def program(self, name: str) -> Path | None:
        """Where a program really lies, links followed."""
        found = shutil.which(name, path=self.environment.get("PATH"))
        return None if found is None else Path(found).resolve()


def read_text(path: Path) -> str | None:
    """A file of configuration; None if there is none that we may read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
