"""Git bundles as streams."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent.errors import GitFailed
from agent.git import SAFE, STDERR_SHOWN

_CHUNK = 256 * 1024
_STATES = "refs/berth-states"


async def stream_bundle(
    directory: Path, environment: Mapping[str, str], tips: Sequence[str], without: Sequence[str]
) -> AsyncIterator[bytes]:
    """A bundle in pieces; git waits while nobody takes them and ends when nobody will.

    It names no commit that its receiver must have, though it builds on `without`: git would demand
    that references lead to them.

    Args:
        directory: The repository.
        environment: All of git's environment.
        tips: The commits it brings, each under a name of its own.
        without: Commits that its receiver has.

    Raises:
        GitFailed: Git could not pack them; raised while the bundle is read.
    """
    lines = [f"{tip} {_STATES}/{tip}" for tip in sorted(set(tips))]
    yield ("# v2 git bundle\n" + "".join(f"{line}\n" for line in lines) + "\n").encode()
    process = await asyncio.create_subprocess_exec(
        "git", *SAFE, "pack-objects", "--revs", "--stdout", "--thin", "--delta-base-offset", "-q",
        cwd=directory, env=environment,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None  # noqa: S101 - all three are pipes; for the type checker
    assert process.stdout is not None  # noqa: S101 - as above
    assert process.stderr is not None  # noqa: S101 - as above
    errors = asyncio.create_task(process.stderr.read())
    try:
        wanted = [*tips, *(f"^{commit}" for commit in without)]
        process.stdin.write("".join(f"{each}\n" for each in wanted).encode())
        process.stdin.close()
        while chunk := await process.stdout.read(_CHUNK):
            yield chunk
        if await process.wait() != 0:
            told = (await errors).decode(errors="replace").strip()
            raise GitFailed(f"git pack-objects failed: {told[-STDERR_SHOWN:]}")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        errors.cancel()
