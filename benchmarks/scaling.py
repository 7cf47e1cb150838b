"""How the cost of keeping a tree grows with the tree and with the change."""

import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.house import House
from benchmarks.measures import MILLISECONDS, new_task
from benchmarks.preserving import make_custody
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.task import NewTask
from orchestrator.flow.custody import Custody
from orchestrator.flow.lease import Leased
from orchestrator.flow.preserve import Preserve
from orchestrator.storage.objects.files import FileObjectStore

TREES = (500, 2_000, 5_000, 20_000)
CHANGES = (1, 50, 500)
GROW = "for n in $(seq {files}); do mkdir -p d$((n / 50)); echo $n > d$((n / 50))/f$n; done"
CHANGE = "for n in $(seq {changed}); do seq $((n * 3)) $((n * 3 + 200)) > d$((n / 50))/f$n; done"
GROWN, CHANGED = 2, 4


@dataclass(frozen=True, slots=True)
class Point:
    """What one change of one tree cost.

    Args:
        files: Files in the tree.
        changed: Files that the change wrote.
        checkpoint_ms: From the call's answer until its checkpoint stands.
        export_ms: From the checkpoint until it is named in the manifest, in milliseconds.
        bundle_bytes: What was stored for it.
        restore_ms: From an empty container until the tree is back, in milliseconds.
    """

    files: int
    changed: int
    checkpoint_ms: float
    export_ms: float
    bundle_bytes: int
    restore_ms: float


async def points(parts: House) -> AsyncIterator[Point]:
    """Measure every change in every tree, each once."""
    for files in TREES:
        for changed in CHANGES:
            with tempfile.TemporaryDirectory(prefix="berth-bench-objects-") as directory:
                yield await _point(parts, files, changed, Path(directory))
            await parts.runtime.remove(parts.workspace.container_name)


async def _point(parts: House, files: int, changed: int, root: Path) -> Point:
    task = await new_task(parts)
    preserve = Preserve(FileObjectStore(root / "objects"), parts.clock)
    custody = await make_custody(parts, preserve, root)
    async with parts.lease.hold(parts.workspace, parts.generation) as leased:
        await parts.supply(task, leased.worker)
        await _run(parts, task, leased, GROWN, GROW.format(files=files))
        await custody.export(task, leased)
        await _run(parts, task, leased, CHANGED, CHANGE.format(changed=changed))
        began = time.perf_counter()
        await leased.worker.checkpoints(task.id)
        settled = time.perf_counter()
        await custody.export(task, leased)
        exported = time.perf_counter()
    manifest = await preserve.read(task.workspace.id)
    size = manifest.bundles[-1].size if manifest else 0
    restore_ms = await _restored(parts, task, custody)
    return Point(
        files, changed, (settled - began) * MILLISECONDS, (exported - settled) * MILLISECONDS,
        size, restore_ms,
    )  # fmt: skip


async def _run(parts: House, task: NewTask, leased: Leased, step: int, command: str) -> None:
    async with leased.worker.toolbox(task.id) as toolbox:
        result = await toolbox.call("bash", {"command": command}, key=str(step))
    if result.is_error:
        raise RuntimeError(f"the tree cannot be made: {result.text}")
    data = {"id": str(step), "name": "bash", "arguments": '{"command": "true"}'}
    await parts.events.append(task.id, NewEvent(EventKind.TOOL, step, dict(data)))


async def _restored(parts: House, task: NewTask, custody: Custody) -> float:
    await parts.runtime.remove(parts.workspace.container_name)
    async with parts.lease.hold(parts.workspace, parts.generation) as leased:
        await parts.supply(task, leased.worker)
        began = time.perf_counter()
        restored = await custody.restore(task, leased.worker)
        taken = (time.perf_counter() - began) * MILLISECONDS
    if restored.step != CHANGED or restored.repeated:
        raise RuntimeError(f"the tree did not come back from storage: {restored}")
    return taken
