"""Child processes that end with everything they started, and whose output never hangs a call."""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import anyio
from mcp.server.mcpserver.exceptions import ToolError

from mcp_servers.capture import Capture

GRACE = 0.7
"""Seconds between asking a process to end and killing it."""

TIMED_OUT = 124
"""Exit code of a process that ran out of time, as the `timeout` command reports it."""

_SIGNALLED = 128
_BLOCK = 64 * 1024
_POLL = 0.01
_FALLBACK_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The kernel takes the child first when memory runs out, so that the server survives. Done by the
# child itself, before the command can start children that would not inherit it.
_GIVE_WAY = '{ echo 500 > /proc/self/oom_score_adj; } 2>/dev/null; exec "$@"'


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended. A signal counts as 128 plus its number, as in a shell."""

    exit_code: int
    timed_out: bool
    seconds: float


async def run(
    command: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    time_limit: float,
    stdout: Capture,
    stderr: Capture,
) -> Outcome:
    """Run a command in a session of its own and feed its output to the captures.

    Returns when the command itself exits. Whatever is left of its session is then ended, as it is
    on timeout and on cancellation: SIGTERM first, SIGKILL after `GRACE` seconds. A process that
    made a session of its own lives on, but cannot delay the call.

    Raises:
        ToolError: the process could not be started.
    """
    started = time.monotonic()
    with _Pipe(stdout) as out, _Pipe(stderr) as err:
        process = _start(command, directory, environment, out, err)
        timed_out = False
        try:
            async with asyncio.timeout(time_limit):
                await _exited(process)
        except TimeoutError:
            timed_out = True
        finally:
            with anyio.CancelScope(shield=True):
                await _end_session(process)
            out.drain()
            err.drain()
    return Outcome(
        exit_code=TIMED_OUT if timed_out else _exit_code(process.returncode),
        timed_out=timed_out,
        seconds=round(time.monotonic() - started, 3),
    )


def find_program(name: str, environment: Mapping[str, str]) -> str | None:
    """Return the full path of a program on the environment's PATH."""
    return shutil.which(name, path=environment.get("PATH", _FALLBACK_PATH))


def clean_environment(allowed: frozenset[str]) -> dict[str, str]:
    """Return the variables of this process that are in `allowed`, with defaults for the basics."""
    basics = {"PATH": _FALLBACK_PATH, "LANG": "C.UTF-8"}
    return basics | {name: value for name, value in os.environ.items() if name in allowed}


class _Pipe:
    """A pipe whose read end feeds a capture from the event loop."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._reader = self.writer = -1

    def __enter__(self) -> Self:
        try:
            self._reader, self.writer = os.pipe()
        except OSError as error:
            raise _cannot_start(error) from error
        os.set_blocking(self._reader, False)
        asyncio.get_running_loop().add_reader(self._reader, self._ready)
        return self

    def __exit__(self, *_: object) -> None:
        self.close_writer()
        self._close_reader()

    def close_writer(self) -> None:
        """Leave the write end to the child."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def drain(self) -> None:
        """Read what is there, at most what the pipe holds, without waiting for writers."""
        for _ in range(64):
            if self._reader < 0 or not self._ready():
                return

    def _ready(self) -> bool:
        try:
            data = os.read(self._reader, _BLOCK)
        except BlockingIOError:
            return False
        if data:
            self._capture.feed(data)
        else:
            self._close_reader()
        return bool(data)

    def _close_reader(self) -> None:
        if self._reader >= 0:
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1


def _start(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    out: _Pipe,
    err: _Pipe,
) -> subprocess.Popen[bytes]:
    try:
        # Not asyncio's own: some of its versions wait for the pipes, or need a thread per child.
        process = subprocess.Popen(
            ["/bin/sh", "-c", _GIVE_WAY, "sh", *command],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out.writer,
            stderr=err.writer,
            start_new_session=True,
        )
    except OSError as error:
        raise _cannot_start(error) from error
    except ValueError as error:
        raise ToolError("an argument holds a null character or invalid Unicode") from error
    out.close_writer()
    err.close_writer()
    return process


def _exit_code(code: int | None) -> int:
    if code is None:  # Not even SIGKILL has ended it: it hangs in the kernel.
        code = -signal.SIGKILL
    return code if code >= 0 else _SIGNALLED - code


def _cannot_start(error: OSError) -> ToolError:
    if error.errno == errno.EAGAIN:
        return ToolError(
            "cannot start a process: the limit of processes is reached; end some of them first"
        )
    if error.errno == errno.E2BIG:
        return ToolError(
            "cannot start a process: the command is too long; write it to a file and run that"
        )
    return ToolError(f"cannot start a process: {(error.strerror or 'failed').lower()}")


async def _exited(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has exited, without reaping it: that would free its number."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        # Some sandboxes lack the call.
        options = os.WEXITED | os.WNOWAIT
        await asyncio.to_thread(os.waitid, os.P_PID, process.pid, options)
        return
    loop = asyncio.get_running_loop()
    exited = asyncio.Event()
    loop.add_reader(descriptor, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End every process of the session, then reap its leader."""
    leader = process.pid
    # The whole session, not only the group: `timeout`, for one, makes a group of its own.
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE
        members = _signal(leader, number)
        while members and time.monotonic() < deadline:
            await asyncio.sleep(_POLL)
            # A fork bomb makes new ones meanwhile.
            members = _signal(leader, number) if number == signal.SIGKILL else _members(leader)
        if not members:
            break
    process.poll()


def _signal(leader: int, number: signal.Signals) -> list[int]:
    """Signal all living members of a session and return them."""
    members = _members(leader)
    for pid in members:
        # Gone by now, or with another user's rights, which only the container's end stops.
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return members


def _members(leader: int) -> list[int]:
    """Return the processes of a session that have not exited."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                status = Path(entry.path, "stat").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            # The name in parentheses may hold anything, so count from its end.
            state, _, _, session = status.rpartition(b")")[2].split()[:4]
            if int(session) == leader and state not in (b"Z", b"X"):
                found.append(int(entry.name))
    return found
