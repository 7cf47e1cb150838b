"""Writers that publish, compact, collect, lose their leases and die, in any order."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bundles import (
    StandInBundler,
    StillClock,
    commit,
    new_bundle,
    require_restorable,
)
from tests.support.memory_objects import MemoryObjectStore

from orchestrator.domain.compaction import CompactionLimits
from orchestrator.domain.manifest import Checkpoint, Manifest
from orchestrator.errors import ObjectConflict, ObjectNotFound, StaleLease
from orchestrator.flow import preserve as preserve_module
from orchestrator.flow.preserve import NewBundle, Preserve
from orchestrator.ports import ObjectInfo, StoredObject

WORKSPACE = "w"
MANIFEST = "workspaces/w/manifest.json"
RETENTION = timedelta(days=2)
LIMITS = CompactionLimits(max_bundles=2)
WRITERS = 3
MOST_STEPS = 300

T = TypeVar("T")


class Gate:
    """One writer's way to the store; it waits for its turn before and after each operation."""

    def __init__(self, store: MemoryObjectStore) -> None:
        self._store = store
        self.parked = asyncio.Event()
        self._turn = asyncio.Event()
        self.generation = 1

    def release(self) -> None:
        self.parked.clear()
        self._turn.set()

    async def _wait(self) -> None:
        self._turn.clear()
        self.parked.set()
        await self._turn.wait()

    async def _pass(self, operation: Callable[[], Awaitable[T]]) -> T:
        await self._wait()
        try:
            return await operation()
        finally:
            await self._wait()  # whoever is killed here has done it and does not know

    async def put(
        self, key: str, content: bytes, *, if_generation: int | None = None
    ) -> ObjectInfo:
        async def put() -> ObjectInfo:
            before = await stored_manifest(self._store)
            info = await self._store.put(key, content, if_generation=if_generation)
            assert before is None or self.generation >= before.generation, "a stale writer won"
            return info

        return await self._pass(put)

    async def put_file(
        self, key: str, path: Path, *, if_generation: int | None = None
    ) -> ObjectInfo:
        return await self._pass(
            lambda: self._store.put_file(key, path, if_generation=if_generation)
        )

    async def read(self, key: str) -> StoredObject:
        return await self._pass(lambda: self._store.read(key))

    async def get_file(self, key: str, path: Path) -> ObjectInfo:
        return await self._pass(lambda: self._store.get_file(key, path))

    async def list(self, prefix: str) -> Sequence[ObjectInfo]:
        return await self._pass(lambda: self._store.list(prefix))

    async def delete(self, key: str, *, if_generation: int | None = None) -> bool:
        return await self._pass(lambda: self._store.delete(key, if_generation=if_generation))


@dataclass
class Writer:
    """One orchestrator: it does one thing at a time, and can die."""

    gate: Gate
    preserve: Preserve
    task: asyncio.Task[object] | None = None
    last: tuple[str, Checkpoint, NewBundle] | None = None


@dataclass
class World:
    """The store, its writers, and what they were promised."""

    directory: Path
    store: MemoryObjectStore = field(default_factory=MemoryObjectStore)
    clock: StillClock = field(default_factory=StillClock)
    writers: list[Writer] = field(default_factory=list)
    commits: int = 0
    leases: int = 1
    promised: list[tuple[str, Checkpoint]] = field(default_factory=list)
    seen: list[tuple[datetime, Manifest]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store.now = self.clock.now()
        for _ in range(WRITERS):
            gate = Gate(self.store)
            self.writers.append(Writer(gate, Preserve(gate, self.clock, RETENTION)))

    async def act(self, action: str, number: int, choice: int) -> None:
        writer = self.writers[number]
        if action == "wait":
            self.clock.advance(timedelta(days=choice % 9))
            self.store.now = self.clock.now()
        elif action == "kill" and writer.task is not None:
            await self.kill(writer)
        elif action == "step" and writer.task is not None:
            for _ in range(1 + choice % 4):
                await self.step(writer)
        elif action == "run":
            await self.run(writer)
        elif action not in ("kill", "step") and writer.task is None:
            await self.start(action, writer, number, choice)
        await self.check()

    async def start(self, action: str, writer: Writer, number: int, choice: int) -> None:
        work: Awaitable[object]
        if action == "lease":
            self.leases += choice % 4 == 0  # else it shares the lease of whoever has it
            writer.gate.generation = self.leases
            work = writer.preserve.claim(WORKSPACE, self.leases)
        elif action == "compact":
            bundler = StandInBundler(str(choice % 2))
            work = writer.preserve.compact(
                WORKSPACE, writer.gate.generation, bundler, self.directory, LIMITS
            )
        elif action == "collect":
            work = writer.preserve.collect(WORKSPACE, writer.gate.generation)
        elif action == "again" and writer.last is not None:
            work = self.publish(writer, *writer.last)
        else:
            writer.last = await self.new_work(f"t{number}", choice)
            work = self.publish(writer, *writer.last)
        writer.gate.parked.clear()
        writer.task = asyncio.ensure_future(work)
        await self.settle(writer)

    async def new_work(self, task_id: str, choice: int) -> tuple[str, Checkpoint, NewBundle]:
        """A checkpoint on top of the repository's own history or of any stored one."""
        self.commits += 1
        manifest = await stored_manifest(self.store)
        tips = sorted(manifest.brings("code")) if manifest else []
        parent = [tips[choice % len(tips)]] if tips and choice % 3 else []
        bundle = new_bundle(self.directory, [commit(self.commits)], parent)
        checkpoint = Checkpoint(step=self.commits, repository="code", commit=bundle.tips[0])
        return task_id, checkpoint, bundle

    async def publish(
        self, writer: Writer, task_id: str, checkpoint: Checkpoint, bundle: NewBundle
    ) -> None:
        generation = writer.gate.generation
        await writer.preserve.publish(WORKSPACE, generation, {task_id: [checkpoint]}, bundle)
        self.promised.append((task_id, checkpoint))

    async def run(self, writer: Writer) -> None:
        for _ in range(MOST_STEPS):
            await self.step(writer)
        assert writer.task is None

    async def step(self, writer: Writer) -> None:
        if writer.task is not None:
            writer.gate.release()
            await self.settle(writer)

    async def settle(self, writer: Writer) -> None:
        """Wait until the writer stands before or after an operation, or has ended."""
        assert writer.task is not None
        parked = asyncio.ensure_future(writer.gate.parked.wait())
        await asyncio.wait({writer.task, parked}, return_when=asyncio.FIRST_COMPLETED)
        parked.cancel()
        if writer.task.done():
            error = writer.task.exception()
            assert error is None or isinstance(error, StaleLease | ObjectConflict), error
            writer.task = None

    async def kill(self, writer: Writer) -> None:
        assert writer.task is not None
        writer.task.cancel()
        await asyncio.wait({writer.task})
        writer.task = None

    async def check(self) -> None:
        manifest = await stored_manifest(self.store)
        if manifest is None:
            assert not self.promised
            return
        await require_restorable(self.store, manifest)
        for task_id, checkpoint in self.promised:
            assert checkpoint in manifest.checkpoints[task_id]
        if self.seen:
            assert manifest.generation >= self.seen[-1][1].generation
        now = self.clock.now()
        self.seen = [each for each in self.seen if each[0] + RETENTION > now]
        stored = {info.key for info in await self.store.list("")}
        for _, older in self.seen:
            assert older.keys() <= stored, "a reader of an older manifest cannot go on"
        self.seen.append((now, manifest))

    async def finish(self) -> None:
        """Let every writer end; then a new one must find all, and be able to go on."""
        for writer in self.writers:
            await self.run(writer)
        await self.check()
        self.leases += 1
        fresh = Preserve(self.store, self.clock, RETENTION)
        checkpoint = Checkpoint(step=1, repository="code", commit=commit(999_999))
        bundle = new_bundle(self.directory, [checkpoint.commit])
        await fresh.publish(WORKSPACE, self.leases, {"last": [checkpoint]}, bundle)
        self.clock.advance(2 * RETENTION)
        self.store.now = self.clock.now()
        await fresh.collect(WORKSPACE, self.leases)
        await self.check()
        manifest = await fresh.read(WORKSPACE)
        assert manifest is not None
        left = {info.key for info in await self.store.list("")}
        assert left == manifest.keys() | {MANIFEST}


async def stored_manifest(store: MemoryObjectStore) -> Manifest | None:
    try:
        return Manifest.from_json((await store.read(MANIFEST)).content, WORKSPACE)
    except ObjectNotFound:
        return None


ACTIONS = st.tuples(
    st.sampled_from(
        ["step"] * 5
        + ["run"] * 6
        + ["publish"] * 4
        + [
            "compact",
            "compact",
            "collect",
            "collect",
            "kill",
            "wait",
            "wait",
            "again",
            "lease",
            "lease",
        ]
    ),
    st.integers(0, WRITERS - 1),
    st.integers(0, 30),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(ACTIONS, min_size=60, max_size=160))
def test_nothing_published_is_ever_lost(actions: list[tuple[str, int, int]]) -> None:
    async def run(directory: Path) -> None:
        world = World(directory)
        for action in actions:
            await world.act(*action)
        await world.finish()

    pause = preserve_module._pause
    preserve_module._pause = lambda attempt: 0.0 * attempt
    try:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(run(Path(directory)))
    finally:
        preserve_module._pause = pause
