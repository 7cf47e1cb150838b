"""The measurements."""

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from benchmarks.figures import Figure, figure
from benchmarks.house import IMAGE, House, add_task
from orchestrator.agent import Agent, AgentLoop
from orchestrator.domain.budget import Budget
from orchestrator.domain.conversation import Message, ModelTurn, Role, ToolCall, ToolSpec, Usage
from orchestrator.domain.task import NewTask
from orchestrator.durability.dbos_engine import DbosEngine
from orchestrator.flow.hands import Hands
from orchestrator.flow.lease import Lease, Leased
from orchestrator.ports import OnText, PreparedTask, Steps, Toolbox
from orchestrator.settings import RuntimeChoice

MILLISECONDS = 1_000.0
MEBIBYTE = 1024 * 1024
BUDGET = Budget(max_steps=10_000, max_tokens=10**9, max_seconds=600)
CALLS = 40
STEP_SECONDS = 60.0
SETTLE_SECONDS = 0.3  # longer than any checkpoint of the measured tree
MANY_FILES = (
    "for d in $(seq 100); do mkdir d$d; "
    "for f in $(seq 50); do echo $f > d$d/f$((d * 50 + f)); done; done"
)


async def cold(parts: House, choice: RuntimeChoice, rounds: int) -> Figure:
    """From nothing (no container, no volume, no clone) to the first tool result."""
    floors, samples = [], []
    for _ in range(rounds):
        floors.append(await _floor_of_start(choice))
        task = await new_task(parts)
        began = time.perf_counter()
        await _first_result(parts, task)
        samples.append((time.perf_counter() - began) * MILLISECONDS)
        await parts.runtime.remove(parts.workspace.container_name)
    name = "`docker run`" if choice is RuntimeChoice.DOCKER else "`bwrap … true`"
    floor = (f"{name} of the same image or system", sorted(floors)[len(floors) // 2])
    return figure("cold create to first tool result", "ms", samples, target=900, floor=floor)


async def warm(parts: House, rounds: int) -> Figure:
    """From a request on a known repository to the first tool result in its running container."""
    await _first_result(parts, await new_task(parts))
    samples = []
    for _ in range(rounds):
        began = time.perf_counter()
        await _first_result(parts, await new_task(parts))
        samples.append((time.perf_counter() - began) * MILLISECONDS)
    floor = ("`git worktree add` of the same tree", await floor_of_worktree(parts, rounds))
    return figure("warm reuse to first tool result", "ms", samples, target=120, floor=floor)


async def step(parts: House, rounds: int) -> Figure:
    """One durable step of the loop with a model that answers at once; half are tool calls."""
    samples: asyncio.Queue[float] = asyncio.Queue()
    floors: list[float] = []
    known: dict[str, NewTask] = {}

    async def run(task_id: str, steps: Steps) -> None:
        task = known[task_id]
        async with Hands(
            task, parts.generation, parts.lease, parts.supply, nothing, admit=parts.admit
        ) as hands:
            await hands.tools()
            floors.append(await _floor_of_call(hands))
            samples.put_nowait(await _time_loop(parts, task, hands, steps))

    engine = DbosEngine(parts.database_url, executor_id="bench", per_workspace=1, at_once=1)
    await engine.start(run)
    try:
        for _ in range(rounds):
            task = await new_task(parts)
            known[task.id] = task
            await engine.submit(task.id, task.workspace.id)
        async with asyncio.timeout(STEP_SECONDS * rounds):
            taken = [await samples.get() for _ in range(rounds)]
    finally:
        await engine.stop()
    floor = ("a tool call over MCP alone", sorted(floors)[len(floors) // 2])
    return figure("one durable step, zero-latency model", "ms", taken, target=25, floor=floor)


async def nothing(_leased: Leased, _tree: PreparedTask) -> None:
    """What `Hands` is given where nobody wants to know of a prepared tree."""


async def checkpoint(parts: House, rounds: int) -> Figure:
    """How long a change of one file in a large tree holds up a call that follows at once."""
    waiting, floor = await _keyed_and_plain(parts, rounds, settle_seconds=0.0)
    return figure("checkpoint of one file among 5,000", "ms", waiting, target=60, floor=floor)


async def checkpoint_path(parts: House, rounds: int) -> Figure:
    """What a call pays for being kept when the calls before it have their checkpoints."""
    waiting, floor = await _keyed_and_plain(parts, rounds, settle_seconds=SETTLE_SECONDS)
    return figure("checkpoint on the caller's path", "ms", waiting, target=10, floor=floor)


async def _keyed_and_plain(
    parts: House, rounds: int, settle_seconds: float
) -> tuple[list[float], tuple[str, float]]:
    """What a change costs with a key beyond the same change without one; each after another."""
    task = await new_task(parts)
    plain: list[float] = []
    kept: list[float] = []
    async with parts.lease.hold(parts.workspace, parts.generation) as leased:
        await parts.supply(task, leased.worker)
        async with leased.worker.toolbox(task.id) as toolbox:
            await toolbox.tools()
            await toolbox.call("bash", {"command": MANY_FILES}, key="0")
            for number in range(2 * rounds):
                arguments: dict[str, object] = {"path": "d3/f151", "content": f"{number}\n"}
                plain.append(await _time_call(toolbox, arguments, key=""))
                await asyncio.sleep(SETTLE_SECONDS)
                await _time_call(toolbox, arguments, key=f"{number}a")
                await asyncio.sleep(settle_seconds)
                kept.append(await _time_call(toolbox, arguments, key=f"{number}b"))
                await asyncio.sleep(SETTLE_SECONDS)
    middle = sorted(plain)[len(plain) // 2]
    return [each - middle for each in kept], ("the same call without one", middle)


async def _time_call(toolbox: Toolbox, arguments: dict[str, object], key: str) -> float:
    began = time.perf_counter()
    result = await toolbox.call("write_file", arguments, key=key)
    if result.is_error:
        raise RuntimeError(f"writing failed: {result.text}")
    return (time.perf_counter() - began) * MILLISECONDS


async def memory(parts: House) -> Figure:
    """Resident memory of a worker that has served tool calls."""
    task = await new_task(parts)
    async with parts.lease.hold(parts.workspace, parts.generation) as leased:
        await parts.supply(task, leased.worker)
        async with leased.worker.toolbox(task.id) as toolbox:
            await toolbox.call("bash", {"command": "true"})
            sizes = _worker_sizes()
    floor = ("an empty Python process", await _floor_of_python())
    return figure("memory of a worker", "MB", [max(sizes)], target=80, floor=floor)


async def new_task(parts: House) -> NewTask:
    """A recorded task on the house's repository."""
    repository = parts.workspace.repositories[0]
    start = await parts.repositories.start_point(repository.url, repository.name, None)
    task = NewTask(secrets.token_hex(8), "measure", parts.workspace, (start,), (), BUDGET)
    await add_task(parts, task)
    return task


async def _first_result(parts: House, task: NewTask) -> None:
    """What happens to an accepted task until its first tool has answered."""
    repository = parts.workspace.repositories[0]
    await parts.repositories.start_point(repository.url, repository.name, None)
    await first_tool_result(parts, task, parts.lease)


async def first_tool_result(parts: House, task: NewTask, lease: Lease) -> str:
    """From a task that is about to run to its first tool result; how its container was got."""
    async with lease.hold(parts.workspace, parts.generation) as leased:
        await parts.supply(task, leased.worker)
        async with leased.worker.toolbox(task.id) as toolbox:
            await toolbox.tools()
            result = await toolbox.call("list_directory", {"path": "."})
    if result.is_error or "package0" not in result.text:
        raise RuntimeError(f"the first tool call failed: {result.text}")
    return leased.container.how.value


class _InstantModel:
    """Calls a tool a fixed number of times, then answers; takes no time."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    async def complete(
        self,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        timeout_seconds: float,
        on_text: OnText | None = None,
    ) -> ModelTurn:
        """The next turn."""
        del model, messages, tools, timeout_seconds, on_text
        self._left -= 1
        if self._left < 0:
            return ModelTurn(Message(Role.ASSISTANT, "done"), Usage())
        path = f"package{self._left % 10}/module{self._left}.py"
        call = ToolCall(f"call_{self._left}", "read_text_file", f'{{"path": "{path}"}}')
        return ModelTurn(Message(Role.ASSISTANT, tool_calls=(call,)), Usage())


async def _time_loop(parts: House, task: NewTask, toolbox: Toolbox, steps: Steps) -> float:
    loop = AgentLoop(
        agent=Agent("benchmark", "Measure.", "instant", 120_000, 60.0),
        budget=BUDGET,
        model=_InstantModel(CALLS),
        toolbox=toolbox,
        steps=steps,
        record=lambda event: parts.events.append(task.id, event, parts.generation),
        clock=parts.clock,
    )
    began = time.perf_counter()
    await loop.run("measure")
    return (time.perf_counter() - began) * MILLISECONDS / loop.ledger.steps


async def _floor_of_call(toolbox: Toolbox) -> float:
    began = time.perf_counter()
    for number in range(CALLS):
        path = f"package{number % 10}/module{number}.py"
        await toolbox.call("read_text_file", {"path": path})
    return (time.perf_counter() - began) * MILLISECONDS / CALLS


async def _floor_of_start(choice: RuntimeChoice) -> float:
    if choice is RuntimeChoice.DOCKER:
        return await _time_command(
            "docker", "run", "--rm", "--network", "none", "--entrypoint", "true", IMAGE
        )
    return await _time_command(
        "bwrap", "--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib",
        "--symlink", "usr/lib64", "/lib64", "/usr/bin/true",
    )  # fmt: skip


async def floor_of_worktree(parts: House, rounds: int) -> float:
    """Median milliseconds of making a worktree by git alone."""
    repository = Path(parts.workspace.repositories[0].url.path)
    times = []
    for _ in range(rounds):
        path = repository.parent / f"floor-{uuid4().hex}"
        times.append(
            await _time_command(
                "git", "-C", str(repository), "worktree", "add", "-q", "--detach", str(path)
            )
        )
    return sorted(times)[len(times) // 2]


async def _floor_of_python() -> float:
    process = await asyncio.create_subprocess_exec(
        "python3", "-c", "print(open('/proc/self/status').read())", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return _resident(output.decode()) / MEBIBYTE


async def _time_command(*command: str) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    if await process.wait() != 0:
        raise RuntimeError(f"{command[0]} failed: {' '.join(command)}")
    return (time.perf_counter() - began) * MILLISECONDS


def _worker_sizes() -> list[float]:
    """Resident megabytes of every worker process on this machine, in containers or not."""
    sizes = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or int(directory.name) == os.getpid():
            continue
        with suppress(OSError):
            words = (directory / "cmdline").read_bytes().split(b"\0")
            if b"-m" in words and words[words.index(b"-m") + 1] == b"agent":
                sizes.append(_resident((directory / "status").read_text()) / MEBIBYTE)
    if not sizes:
        raise RuntimeError("no worker process was found")
    return sizes


def _resident(status: str) -> int:
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
