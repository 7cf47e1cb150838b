"""Run git on trees that may be hostile: no hooks, no prompts, no configuration but ours."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import GitFailed

# Configuration given on the command line wins over what a task may have written into the clone.
SAFE = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "gc.auto=0",
    "-c", "maintenance.auto=false",
    "-c", "submodule.recurse=false",
    "-c", "advice.detachedHead=false",
    "-c", "advice.addEmbeddedRepo=false",
    "-c", "core.safecrlf=false",
    "-c", "protocol.allow=never",
    "-c", "protocol.file.allow=always",
)  # fmt: skip
IDENTITY = {
    "GIT_AUTHOR_NAME": "Berth",
    "GIT_AUTHOR_EMAIL": "berth@localhost",
    "GIT_COMMITTER_NAME": "Berth",
    "GIT_COMMITTER_EMAIL": "berth@localhost",
}
STDERR_SHOWN = 500


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
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        **IDENTITY,
        **(extra or {}),
    }


async def run_git(
    arguments: Sequence[str],
    cwd: Path,
    *,
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    check: bool = True,
) -> GitOutput:
    """Run one git command to its end.

    Args:
        arguments: The command and its arguments, after our own `-c` options.
        cwd: Where it runs.
        environment: Variables on top of the clean environment.
        stdin: Bytes for its standard input.
        check: Whether a non-zero exit raises.

    Raises:
        GitFailed: The command failed; the text names it and ends with git's own words.
    """
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
        stdout, stderr = await process.communicate(stdin)
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    output = GitOutput(process.returncode or 0, stdout, stderr.decode(errors="replace").strip())
    if check and output.code != 0:
        raise GitFailed(f"git {arguments[0]} failed: {output.stderr[-STDERR_SHOWN:]}")
    return output
