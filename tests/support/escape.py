"""A container with a real worker, its neighbour, and things on this machine to break out to."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.desk import bundle, chunks
from tests.support.repositories import SourceRepository, new_repository
from tests.support.runtimes import MIB, Bench, new_spec

from orchestrator.domain.container import Container, ContainerSpec, Limits
from orchestrator.domain.conversation import ToolResult
from orchestrator.domain.task import StartPoint
from orchestrator.ports import Runtime, Toolbox
from orchestrator.workers.client import HttpWorker, HttpWorkers

URL = "https://example.org/ada/sample.git"
LIMITS = Limits(memory_bytes=256 * MIB, cpus=2.0, pids=96, open_files=512, file_bytes=64 * MIB)
TASK = "t"
# What every attempt may use. `refused` names the error; whatever is not refused is told as it is.
PRELUDE = """
import ctypes, errno, glob, os, resource, signal, socket, stat, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
worker = max(int(p[6:-8]) for p in glob.glob("/proc/[0-9]*/cmdline")
             for words in [open(p).read().split("\\0")]
             if "python" in words[0] and "agent" in words)
def refused(attempt, *arguments, **named):
    try: got = attempt(*arguments, **named)
    except OSError as error: return errno.errorcode[error.errno]
    return f"got {got!r}"
def call(name, *arguments):
    number = dict(zip(CALLS[0::2], CALLS[1::2] if os.uname().machine == "x86_64" else ARM))[name]
    if libc.syscall(number, *arguments) >= 0: return "allowed"
    return errno.errorcode[ctypes.get_errno()]
CALLS = ["unshare", 272, "setns", 308, "keyctl", 250, "add_key", 248, "syslog", 103, "bpf", 321,
         "io_uring_setup", 425, "ptrace", 101, "open_by_handle_at", 304, "perf_event_open", 298,
         "clone", 56, "clone3", 435]
ARM = [97, 268, 219, 217, 116, 280, 425, 117, 265, 241, 220, 435]
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """A claimed container with one task, from which programs try to get out."""

    runtime: Runtime
    spec: ContainerSpec
    container: Container
    worker: HttpWorker
    key: str
    source: SourceRepository

    async def attempt(self, program: str, seconds: float = 30.0) -> str:
        """What a Python program prints that runs as the model's commands do."""
        command = (
            f"cat > /tmp/attempt.py <<'EOF'\n{PRELUDE}\n{program}\nEOF\npython3 /tmp/attempt.py"
        )
        result = await self.call("bash", command=command, timeout=seconds)
        return result.text.removeprefix("exit code: 0").removeprefix("\nstdout:").strip()

    async def call(self, tool: str, /, *, key: str = "", **arguments: object) -> ToolResult:
        """Call a tool."""
        async with self.worker.toolbox(TASK) as toolbox:
            return await _called(toolbox, tool, arguments, key)


async def _called(
    toolbox: Toolbox, tool: str, arguments: dict[str, object], key: str
) -> ToolResult:
    return await toolbox.call(tool, arguments, key=key)


@asynccontextmanager
async def cell(
    bench: Bench, runtime: Runtime | None = None, *, prepared: bool = True
) -> AsyncIterator[Cell]:
    """A new container of its own workspace, with a task unless that is not to be prepared."""
    runtime = runtime or bench.make(agent_command=None)
    spec = new_spec(LIMITS)
    container = await runtime.ensure(spec)
    key = f"key-{secrets.token_hex(16)}"
    worker = await HttpWorkers().connect(container, key)
    try:
        source = new_repository(bench.data_dir / f"source-{container.name}")
        if prepared:
            await worker.receive("sample", URL, chunks(bundle(source)))
            start = [StartPoint("sample", source.head, "main")]
            await worker.prepare(TASK, start, [], install=False)
        yield Cell(runtime, spec, container, worker, key, source)
    finally:
        await worker.close()


@dataclass(slots=True)
class Bystander:
    """A service of this machine that counts who comes by: on loopback and on two unix sockets."""

    port: int
    path: Path
    abstract: str
    visits: int = 0

    async def visit(self) -> None:
        """Come by each way, so that the count is known to work."""
        for connection in (
            asyncio.open_connection("127.0.0.1", self.port),
            asyncio.open_unix_connection(str(self.path)),
            asyncio.open_unix_connection(f"\0{self.abstract}"),
        ):
            reader, writer = await connection
            await reader.read()
            writer.close()


@asynccontextmanager
async def bystander(path: Path) -> AsyncIterator[Bystander]:
    """A service on this machine, one of its sockets at `path`, the other abstract."""
    found = Bystander(0, path, f"berth-{secrets.token_hex(8)}")

    async def visit(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.visits += 1
        writer.close()

    tcp = await asyncio.start_server(visit, "127.0.0.1", 0)
    found.port = tcp.sockets[0].getsockname()[1]
    file = await asyncio.start_unix_server(visit, str(path))
    with abstract_socket(found.abstract) as listener:
        abstract = await asyncio.start_unix_server(visit, sock=listener)
        async with tcp, file, abstract:
            yield found


@contextmanager
def abstract_socket(name: str) -> Iterator[socket.socket]:
    """A unix socket without a file, seen by all of one network namespace."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        yield listener
