"""Bring a task's tree back into a container that has lost it."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from orchestrator.domain.call_check import check_call
from orchestrator.domain.conversation import ToolCall
from orchestrator.domain.events import Event, EventKind
from orchestrator.domain.lacking import NOTHING, Lacking
from orchestrator.domain.manifest import Manifest
from orchestrator.domain.task import NewTask
from orchestrator.errors import (
    BundleRefused,
    CheckpointsUnusable,
    RepositoryError,
    StaleLease,
    StorageFailure,
    TreeGone,
    WorkerRefused,
    WorkLost,
)
from orchestrator.flow.preserve import Preserve
from orchestrator.flow.stored import Filling, StoredStep, newest_step, origins_of
from orchestrator.flow.supply import Supply
from orchestrator.flow.turns import Turns
from orchestrator.ports import CheckpointStore, EventLog, HeldCheckpoints, Origin, Toolbox, Worker

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DoneCall:
    """A tool call that a task has completed, with the arguments as the model wrote them."""

    step: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done to bring a tree back.

    Args:
        lost: Whether anything was missing.
        step: The step whose checkpoint was put back; 0 if that was the start.
        repeated: The steps whose calls were made again after that.
        lacking: What the checkpoint could not carry.
    """

    lost: bool = False
    step: int = 0
    repeated: tuple[int, ...] = ()
    lacking: Lacking = NOTHING

    @property
    def sentence(self) -> str:
        """What the user is told."""
        place = f"as it was after step {self.step}" if self.step else "as it was at the start"
        told = f"The container with the task's tree was lost; the tree was brought back {place}."
        if self.lacking.sentence:
            told = f"{told} {self.lacking.sentence}"
        if not self.repeated:
            return told
        return (
            f"{told} {len(self.repeated)} tool calls after that were made again, from step "
            f"{self.repeated[0]} to step {self.repeated[-1]}: commands may have come to other "
            "results than the first time."
        )


class Restore:
    """Sees that a worker has a task's tree with the effects of all its completed calls.

    Args:
        supply: Makes the tree at its start.
        preserve: Object storage.
        store: Our own git.
        filling: The way from the one to the other.
        events: Tell which calls were completed.
        turns: Nobody else works on what is kept of the workspace meanwhile.
    """

    def __init__(
        self,
        *,
        supply: Supply,
        preserve: Preserve,
        store: CheckpointStore,
        filling: Filling,
        events: EventLog,
        turns: Turns,
    ) -> None:
        self._supply = supply
        self._preserve = preserve
        self._store = store
        self._filling = filling
        self._events = events
        self._turns = turns

    async def __call__(
        self, task: NewTask, worker: Worker, *, before: int | None = None
    ) -> Restored:
        """Bring back what the worker lacks; if it lacks nothing, nothing happens.

        The newest stored checkpoint is put back. Calls completed after it are made again, in
        order and with their keys; so are all, if nothing is stored. Broken off and called again,
        it goes on.

        Args:
            task: The task, which may have ended; its files may be left out then.
            worker: The worker of its workspace.
            before: The step that is to run next: what was stored from an unfinished run of it
                does not count. None if none is to run.

        Raises:
            WorkLost: The tree cannot be brought back.
            WorkerUnreachable: The worker stopped answering.
            StaleLease: The lease has been taken over.
        """
        try:
            return await self._brought_back(task, worker, before)
        except WorkerRefused as error:
            raise WorkLost(
                "The container with the task's tree was lost, and the tree cannot be brought "
                f"back: {error.detail} Send the task again.",
                task=task.id,
            ) from error

    async def ended(self, task: NewTask, worker: Worker) -> None:
        """See that a worker has the tree of a task that has ended; none of its calls is repeated.

        Raises:
            TreeGone: The worker has it not, and what is stored is not its end.
            CheckpointsUnusable: The worker has it not, and what is stored cannot be read.
            WorkerUnreachable: The worker stopped answering.
        """
        held = await self._held(task, worker)
        done = await self._done(task.id, None)
        if not missing(done, held):
            return
        async with worker.toolbox(task.id) as toolbox:
            lost = missing(await _mutating(done, toolbox), held)
        if not lost:
            return
        try:
            step, _ = await self._put_back(task, worker, reached(held), None)
        except StaleLease:
            raise
        except (StorageFailure, BundleRefused) as error:
            raise CheckpointsUnusable(
                f"The tree of task {task.id} went with its container, and what object storage has "
                f"of it cannot be used: {error.detail} Ask again once that is mended, or begin a "
                "new task with the patch as a file: the record and the patch are kept.",
                task_id=task.id,
            ) from error
        if lost[-1].step > step:
            raise TreeGone(
                f"The tree of task {task.id} went with its container, and object storage does not "
                "have its end. Its record and its patch are kept; begin a new task with the patch "
                "as a file.",
                task_id=task.id,
            )

    async def _held(self, task: NewTask, worker: Worker) -> HeldCheckpoints:
        held = await worker.checkpoints(task.id)
        if not held.prepared:
            await self._supply(task, worker)
        return held

    async def _brought_back(self, task: NewTask, worker: Worker, before: int | None) -> Restored:
        held = await self._held(task, worker)
        done = await self._done(task.id, before)
        if not missing(done, held):
            return Restored()
        async with worker.toolbox(task.id) as toolbox:
            lost = missing(await _mutating(done, toolbox), held)
            if not lost:
                return Restored()
            log.warning("tree_lost", task=task.id, step=lost[-1].step)
            step, lacking = await self._put_back_if_readable(task, worker, reached(held), before)
            again = [each for each in lost if each.step > step]
            for each in again:
                arguments = check_call(each.call, await toolbox.tools()).arguments
                await toolbox.call(each.call.name, arguments, key=str(each.step))
        return Restored(
            lost=True, step=step, repeated=tuple(each.step for each in again), lacking=lacking
        )

    async def _done(self, task_id: str, before: int | None) -> list[DoneCall]:
        return [
            DoneCall(event.step, _call(event))
            async for event in self._events.recorded(task_id)
            if event.kind is EventKind.TOOL and (before is None or event.step < before)
        ]

    async def _put_back_if_readable(
        self, task: NewTask, worker: Worker, reached: int, before: int | None
    ) -> tuple[int, Lacking]:
        """The same as `_put_back`, for a task whose calls can be made again from where it is."""
        try:
            return await self._put_back(task, worker, reached, before)
        except StaleLease:
            raise
        except (StorageFailure, BundleRefused, RepositoryError) as error:
            log.warning(
                "checkpoints_unreadable", task=task.id, code=error.code, detail=error.detail
            )
            return reached, NOTHING

    async def _put_back(
        self, task: NewTask, worker: Worker, reached: int, before: int | None
    ) -> tuple[int, Lacking]:
        """Put the tree to what is stored, if that is more than it has.

        Returns:
            Its step then, and what the checkpoint could not carry.

        Raises:
            BerthError: What is stored cannot be read.
        """
        async with self._turns.of(task.workspace.id):
            origins = origins_of(task)
            manifest, stored = await self._stored(task, origins, before)
            if manifest is None or stored is None or stored.step <= reached:
                return reached, NOTHING
            for origin in origins:
                await self._send(task, worker, manifest, origin, stored)
            lacking = await worker.restore(task.id, str(stored.step), dict(stored.states))
            return stored.step, lacking

    async def _stored(
        self, task: NewTask, origins: Sequence[Origin], before: int | None
    ) -> tuple[Manifest | None, StoredStep | None]:
        """The newest step that is stored, with its commits in our own git."""
        manifest = await self._preserve.read(task.workspace.id)
        if manifest is None:
            return None, None
        names = [origin.name for origin in origins]
        stored = newest_step(manifest.checkpoints.get(task.id, ()), names, before)
        if stored is not None:
            for origin in origins:
                await self._filling(manifest, origin, [stored.states[origin.name]])
        return manifest, stored

    async def _send(
        self, task: NewTask, worker: Worker, manifest: Manifest, origin: Origin, stored: StoredStep
    ) -> None:
        """Send a state, and with it the checkpoints that led to it, under their own names."""
        state = stored.states[origin.name]
        commits = {
            f"refs/berth/{task.id}/{each.step}": each.commit
            for each in manifest.checkpoints.get(task.id, ())
            if each.repository == origin.name and each.step <= stored.step
        }
        held = await self._store.held(origin, set(commits.values()))
        names = {name: commit for name, commit in commits.items() if commit in held}
        names[f"refs/berth-states/{state}"] = state
        async with aclosing(self._store.bundle(origin, names, origin.bases)) as bundle:
            await worker.take_bundle(task.id, origin.name, bundle)


def reached(held: HeldCheckpoints) -> int:
    """The last step whose effect the worker's tree has; 0 if it is at its start."""
    return max((int(key) for key in (held.key, *held.ended) if key.isdigit()), default=0)


def missing(done: Sequence[DoneCall], held: HeldCheckpoints) -> list[DoneCall]:
    """The completed calls of which the worker knows nothing."""
    newest = int(held.key) if held.key.isdigit() else 0
    return [each for each in done if each.step > newest and str(each.step) not in held.ended]


async def _mutating(done: Sequence[DoneCall], toolbox: Toolbox) -> list[DoneCall]:
    """Those that may have changed something; a call that could not be run has not."""
    tools = await toolbox.tools()
    reading = {tool.name for tool in tools if tool.read_only}
    return [
        each
        for each in done
        if each.call.name not in reading and not check_call(each.call, tools).complaint
    ]


def _call(event: Event) -> ToolCall:
    data = event.data
    return ToolCall(str(data["id"]), str(data["name"]), str(data["arguments"]))
