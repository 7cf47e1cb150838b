"""What it costs to bring checkpoints out of a container and back."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from benchmarks.figures import Figure, figure
from benchmarks.house import House
from benchmarks.measures import MANY_FILES, MILLISECONDS, SETTLE_SECONDS, new_task
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.task import NewTask
from orchestrator.flow.custody import Custody
from orchestrator.flow.export import TaskExport
from orchestrator.flow.lease import Leased
from orchestrator.flow.preserve import Preserve
from orchestrator.gateway.checkpoint_store import GitCheckpointStore
from orchestrator.ports import Toolbox
from orchestrator.storage.objects.files import FileObjectStore

CHANGED_FILES = (1, 50, 500)
LINE = (
    "seq $(({seed} + 7 * {number})) $(({seed} + 7 * {number} + 200)) "
    "> d$(({number} / 50 + 1))/f$(({number} + 50))"
)
_FIRST_STEP = 10**8
_LAST_STEP = _FIRST_STEP + max(CHANGED_FILES) * 1_000 + 4
FLOOR = "the same call without export"


@dataclass(frozen=True, slots=True)
class _Tree:
    """A task's tree of 5,000 files, and what brings it out."""

    task: NewTask
    leased: Leased
    toolbox: Toolbox
    custody: Custody
    preserve: Preserve


async def preserving(parts: House, rounds: int) -> list[Figure]:
    """Calls, exports and restores of a tree of 5,000 files, and the bytes they move."""
    task = await new_task(parts)
    with tempfile.TemporaryDirectory(prefix="berth-bench-objects-") as directory:
        root = Path(directory)
        preserve = Preserve(FileObjectStore(root / "objects"), parts.clock)
        custody = await make_custody(parts, preserve, root)
        async with parts.lease.hold(parts.workspace, parts.generation) as leased:
            await parts.supply(task, leased.worker)
            async with leased.worker.toolbox(task.id) as toolbox:
                await toolbox.tools()
                await toolbox.call("bash", {"command": MANY_FILES}, key="1")
                await custody.export(task, leased)
                tree = _Tree(task, leased, toolbox, custody, preserve)
                found = await _calls(tree, rounds)
                for changed in CHANGED_FILES:
                    found += await _exports(tree, changed)
        found.append(await _restores(parts, task, preserve, root, min(rounds, 5)))
    return found


async def make_custody(parts: House, preserve: Preserve, root: Path) -> Custody:
    """What brings trees out and back, on a disk of its own and the given storage."""
    data = Path(tempfile.mkdtemp(dir=root))
    store = GitCheckpointStore(data, repositories=parts.repositories, max_bytes=2**31)
    return await Custody.open(
        preserve=preserve,
        store=store,
        supply=parts.supply,
        events=parts.events,
        tasks=parts.tasks,
        room=data / "bundles",
    )


async def _calls(tree: _Tree, rounds: int) -> list[Figure]:
    """One-file calls: without export, with one beside each, and back to back."""
    following = TaskExport(tree.custody.export, tree.task)
    plain, beside, pressed = [], [], []
    for number in range(rounds):
        await asyncio.sleep(SETTLE_SECONDS)
        plain.append(await _call(tree.toolbox, f"p{number}"))
    for number in range(rounds):
        following.wake(tree.leased)
        await asyncio.sleep(SETTLE_SECONDS)  # the model thinks
        beside.append(await _call(tree.toolbox, f"b{number}"))
    await following.finish(tree.leased)
    for number in range(rounds):
        pressed.append(await _call(tree.toolbox, f"x{number}"))
        following.wake(tree.leased)
    await following.finish(tree.leased)
    floor = sorted(plain)[len(plain) // 2]
    return [
        _added("mutating call, export beside the model", beside, floor, 5),
        _added("mutating call, export beside the next one", pressed, floor, 60),
    ]


def _added(name: str, samples: Sequence[float], floor: float, target: float) -> Figure:
    added = [each - floor for each in samples]
    return figure(f"added to a {name}", "ms", added, target=target, floor=(FLOOR, floor))


async def _call(toolbox: Toolbox, key: str) -> float:
    arguments: dict[str, object] = {"path": "d3/f151", "content": f"{key}\n"}
    # Keys of exported checkpoints are numbers.
    number = str(int.from_bytes(key.encode()) % 10**8)
    began = time.perf_counter()
    await toolbox.call("write_file", arguments, key=number)
    return (time.perf_counter() - began) * MILLISECONDS


async def _exports(tree: _Tree, changed: int) -> list[Figure]:
    seconds, sizes = [], []
    for number in range(5):
        seed = changed * 1_000 + number
        lines = f"for n in $(seq {changed}); do {LINE.format(seed=seed, number='n')}; done"
        await tree.toolbox.call("bash", {"command": lines}, key=str(_FIRST_STEP + seed))
        began = time.perf_counter()
        await tree.custody.export(tree.task, tree.leased)
        seconds.append((time.perf_counter() - began) * MILLISECONDS)
        manifest = await tree.preserve.read(tree.task.workspace.id)
        sizes.append(manifest.bundles[-1].size / 1024 if manifest else 0.0)
    what = f"{changed} of 5,000 files changed"
    # What one worker and git process after another take at the least is not known: no floor.
    return [
        figure(f"export, {what}", "ms", seconds, target=500, floor=("-", 0.0)),
        figure(f"bundle, {what}", "kB", sizes, target=20 + changed, floor=("-", 0.0)),
    ]


async def _restores(
    parts: House, task: NewTask, preserve: Preserve, root: Path, rounds: int
) -> Figure:
    """From a container that has only the start, on a machine that has only object storage."""
    samples: list[float] = []
    manifest = await preserve.read(task.workspace.id)
    done: dict[str, JsonValue] = {"id": "c", "name": "bash", "arguments": '{"command": "true"}'}
    await parts.events.append(task.id, NewEvent(EventKind.TOOL, _LAST_STEP, done))
    assert manifest is not None
    for _ in range(rounds):
        await parts.runtime.remove(parts.workspace.container_name)
        custody = await make_custody(parts, preserve, root)
        async with parts.lease.hold(parts.workspace, parts.generation) as leased:
            await parts.supply(task, leased.worker)
            began = time.perf_counter()
            restored = await custody.restore(task, leased.worker)
            samples.append((time.perf_counter() - began) * MILLISECONDS)
            assert restored.step
    name = f"restore of 5,000 files from {len(manifest.bundles)} bundles"
    return figure(name, "ms", samples, target=3_000, floor=("-", 0.0))
