"""Bring checkpoints out of containers into object storage, beside the tasks that make them."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from orchestrator.domain.manifest import Checkpoint, Manifest, empty_manifest, is_commit
from orchestrator.domain.task import NewTask
from orchestrator.errors import BerthError, BundleIncomplete, BundleRefused, WorkerRefused
from orchestrator.flow.lease import Leased
from orchestrator.flow.preserve import NewBundle, Preserve
from orchestrator.flow.stored import origins_of
from orchestrator.flow.turns import Turns
from orchestrator.ports import CheckpointStore, HeldCheckpoints, HeldPart, Origin

log = structlog.get_logger(__name__)

LAST_EXPORT_SECONDS = 20.0
MAX_STEP_DIGITS = 9
NOT_PRESERVED = (
    "The newest state of the task's tree could not be brought to object storage: it lies only in "
    "its container."
)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Checkpoints of one repository to be stored together; for the commits see `BundleRef`."""

    checkpoints: Sequence[Checkpoint]
    tips: tuple[str, ...]
    requires: tuple[str, ...] = ()


class Export:
    """Brings out what a worker has of a task, once.

    Args:
        preserve: Object storage.
        store: Checks what comes out of a container.
        turns: One export at a time in a workspace.
        room: Where bundles lie meanwhile.
    """

    def __init__(
        self, preserve: Preserve, store: CheckpointStore, turns: Turns, room: Path
    ) -> None:
        self._preserve = preserve
        self._store = store
        self._turns = turns
        self._room = room

    async def __call__(self, task: NewTask, leased: Leased) -> None:
        """Store all checkpoints that are not stored yet.

        Raises:
            BundleRefused: The container handed out what cannot be kept.
            StaleLease: The lease has been taken over.
            RuntimeFailure: The container does not answer.
            StorageFailure: Storage does not take it.
        """
        async with self._turns.of(task.workspace.id):
            held = await leased.worker.checkpoints(task.id)
            if held.failed:
                log.warning("no_checkpoint", task=task.id, step=held.key, said=held.failed[:300])
            if held.parts:
                await self._store_parts(task, leased, held)

    async def _store_parts(self, task: NewTask, leased: Leased, held: HeldCheckpoints) -> None:
        parts = {part.name: part for part in held.parts}
        known = {origin.name: origin for origin in origins_of(task)}
        if parts.keys() != known.keys():
            raise _refused("of other repositories than the task's")
        manifest = await self._preserve.read(task.workspace.id)
        for name, part in parts.items():
            checkpoints = listed(part, known[name], held.key)
            await self._store_part(
                task, leased, known[name], checkpoints, manifest or empty_manifest("")
            )

    async def _store_part(
        self,
        task: NewTask,
        leased: Leased,
        origin: Origin,
        checkpoints: Sequence[Checkpoint],
        manifest: Manifest,
    ) -> None:
        stored = [
            each for each in manifest.checkpoints.get(task.id, ()) if each.repository == origin.name
        ]
        new = [each for each in checkpoints if not _is_stored(each, stored)]
        if not new:
            return
        held = manifest.brings(origin.name) | set(origin.bases)
        commits = dict.fromkeys(commit for each in new for commit in each.commits)
        tips = tuple(commit for commit in commits if commit not in held)
        states = [each.state for each in stored if each.state in held]
        requires = tuple(state for state in states[-1:] if state is not None)
        if tips and not (await self._store.held(origin, requires)).issuperset(requires):
            requires = ()
        try:
            await self._publish(task, leased, origin, _Batch(new, tips, requires))
        except (BundleIncomplete, WorkerRefused) as error:
            # What was stored before is not where we thought: this one stands by itself.
            log.warning("export_starts_anew", task=task.id, code=error.code)
            tips = tuple(commit for commit in commits if commit not in origin.bases)
            await self._publish(task, leased, origin, _Batch(new, tips))

    async def _publish(self, task: NewTask, leased: Leased, origin: Origin, batch: _Batch) -> None:
        named = {task.id: batch.checkpoints}
        workspace_id, generation = task.workspace.id, leased.generation
        if not batch.tips:
            await self._preserve.publish(workspace_id, generation, named)
            return
        with tempfile.TemporaryDirectory(dir=self._room) as directory:
            path = Path(directory) / "bundle"
            without = (*batch.requires, *origin.bases)
            bundle = leased.worker.bundle(task.id, origin.name, batch.tips, without)
            await self._store.receive(origin, bundle, batch.tips, path)
            made = NewBundle(path, origin.name, batch.tips, batch.requires, origin.bases)
            await self._preserve.publish(workspace_id, generation, named, made)


class TaskExport:
    """Follows one task: after each of its calls what is new is brought out, as soon as may be.

    Calls that end while an export runs are brought out together by the next one.

    Args:
        export: Brings it out.
        task: The task.
    """

    def __init__(self, export: Export, task: NewTask) -> None:
        self._export = export
        self._task = task
        self._leased: Leased | None = None
        self._behind = False
        self._running: asyncio.Task[None] | None = None
        self._problem: str = ""

    def wake(self, leased: Leased) -> None:
        """Tell that a call has ended; returns at once."""
        self._leased = leased
        self._behind = True
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())

    async def finish(self, leased: Leased) -> str:
        """Wait until all is stored, not for ever; returns what the user must know, or nothing."""
        if self._behind or self._problem:
            self.wake(leased)
        if self._running is not None:
            await asyncio.wait([self._running], timeout=LAST_EXPORT_SECONDS)
        return NOT_PRESERVED if self._behind or self._problem else ""

    async def stop(self) -> None:
        """Use the container no more; what is not stored yet waits for the next call."""
        if self._running is not None and not self._running.done():
            self._running.cancel()
            await asyncio.wait([self._running])
            self._problem = "interrupted"
        self._leased = None

    async def _run(self) -> None:
        while self._behind and self._leased is not None:
            self._behind = False
            self._problem = ""
            try:
                await self._export(self._task, self._leased)
            except BerthError as error:
                self._problem = error.code
                log.warning(
                    "export_failed", task=self._task.id, code=error.code, detail=error.detail
                )
            except Exception:
                # A defect of ours, or a connection closed under it: the task must not suffer.
                self._problem = "internal_error"
                log.exception("export_broke", task=self._task.id)


def listed(part: HeldPart, origin: Origin, key: str) -> tuple[Checkpoint, ...]:
    """The checkpoints that a worker tells of, the newest with its state.

    Raises:
        BundleRefused: It tells what cannot be.
    """
    told = {**part.checkpoints, key: part.commit}
    if any(not name.isdigit() or len(name) > MAX_STEP_DIGITS for name in told):
        raise _refused("after steps that are no steps")
    if not all(map(is_commit, (part.state, *told.values()))):
        raise _refused("of commits that are no commits")
    if (part.start,) != (origin.bases or ("",)):
        raise _refused("from another start than the task's")
    return tuple(
        Checkpoint(
            step=int(name),
            repository=part.name,
            commit=commit,
            state=part.state if name == key else None,
        )
        for name, commit in sorted(told.items(), key=lambda each: int(each[0]))
        if int(name) > 0
    )


def _is_stored(checkpoint: Checkpoint, stored: Sequence[Checkpoint]) -> bool:
    # That a step has a state is known from the export after which it was the newest.
    return any(
        each.step == checkpoint.step
        and each.commit == checkpoint.commit
        and checkpoint.state in (None, each.state)
        for each in stored
    )


def _refused(what: str) -> BundleRefused:
    return BundleRefused(
        f"A container told of checkpoints {what}: they are not kept. The task goes on; if its "
        "container is lost, its newest work is lost too."
    )
