"""Run git on trees that may be hostile: no hooks, no prompts, no configuration but ours."""

import asyncio
import os
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.errors import GitFailed

T = TypeVar("T")

# Configuration given on the command line wins over what a task may have written into the clone.
SAFE = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "core.compression=1",
    "-c", "gc.auto=0",
    "-c", "maintenance.auto=false",
    "-c", "submodule.recurse=false",
    "-c", "fetch.recurseSubmodules=false",
    "-c", "core.safecrlf=false",
)  # fmt: skip
TIMEOUT_SECONDS = 60.0
STDERR_SHOWN = 500
_BLOCK = 1024 * 1024


class TooMuchOutput(GitFailed):
    """A git command printed more than it may."""


@dataclass(frozen=True, slots=True)
class GitOutput:
    """What a git command printed."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Standard output as text without the last line break."""
        return self.stdout.decode(errors="replace").rstrip("\n")


def git_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A clean environment for git, with `extra` on top."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        # Unlike protocol.allow, no configuration of a repository can widen it.
        "GIT_ALLOW_PROTOCOL": "file",
        **(extra or {}),
    }


async def run_git(
    arguments: Sequence[str],
    cwd: Path,
    *,
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    check: bool = True,
    limit: int | None = None,
    timeout: float = TIMEOUT_SECONDS,  # noqa: ASYNC109 - ends the process, not only the wait
) -> GitOutput:
    """Run one git command to its end.

    Args:
        arguments: The command and its arguments, after our own `-c` options.
        cwd: Where it runs.
        environment: Variables on top of the clean environment.
        stdin: Bytes for its standard input.
        check: Whether a non-zero exit raises.
        limit: Most bytes that it may print.
        timeout: Most seconds that it may run.

    Raises:
        GitFailed: The command failed or took too long; the text names it and ends with git's own
            words.
        TooMuchOutput: It printed more than `limit`.
    """
    command = next(each for each in arguments if not each.startswith("-") and "=" not in each)
    process = await asyncio.create_subprocess_exec(
        "git",
        *SAFE,
        *arguments,
        cwd=cwd,
        env=git_environment(environment),
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout):
            output = await _communicate(process, stdin, limit)
    except TimeoutError:
        raise GitFailed(f"git {command} was ended after {timeout:.0f} s") from None
    except OverflowError:
        raise TooMuchOutput(f"git {command} printed more than {limit} bytes") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if check and output.code != 0:
        raise GitFailed(f"git {command} failed: {output.stderr[-STDERR_SHOWN:]}")
    return output


async def run_all(*jobs: Awaitable[T]) -> list[T]:
    """The results of jobs run side by side.

    All have ended when this returns or raises the first error, so that the caller can clean up.
    """
    results = await asyncio.gather(*jobs, return_exceptions=True)
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done


async def _communicate(
    process: asyncio.subprocess.Process, stdin: bytes | None, limit: int | None
) -> GitOutput:
    if limit is None:
        stdout, stderr = await process.communicate(stdin)
    else:
        assert process.stdout is not None  # noqa: S101 - it is a pipe; for the type checker
        assert process.stderr is not None  # noqa: S101 - as above
        errors = asyncio.create_task(process.stderr.read())
        try:
            stdout = await _read(process.stdout, limit)
            stderr = await errors
        finally:
            errors.cancel()
        await process.wait()
    return GitOutput(process.returncode or 0, stdout, stderr.decode(errors="replace").strip())


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    blocks, size = [], 0
    while block := await stream.read(_BLOCK):
        size += len(block)
        if size > limit:
            raise OverflowError
        blocks.append(block)
    return b"".join(blocks)
