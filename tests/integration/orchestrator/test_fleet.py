"""One orchestrator's leases and duties on a real database, and the engine that hands tasks over."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from tests.support.fleet import HEARTBEAT_SECONDS, Member, members

from orchestrator.domain.steps import StepRecord
from orchestrator.durability.dbos_engine import DbosEngine
from orchestrator.errors import StaleLease
from orchestrator.flow.fleet import Fleet
from orchestrator.flow.running import RunningTasks
from orchestrator.flow.shares import LeaseShares
from orchestrator.ports import RunTaskDurably, Steps

SECONDS = 20.0


@dataclass(slots=True)
class IdleEngine:
    """An engine whose tasks are said to be begun by certain executors."""

    begun_by: frozenset[str] = frozenset()
    recovered: list[Sequence[str]] = field(default_factory=list)

    async def start(self, run: RunTaskDurably) -> None:
        raise NotImplementedError

    async def submit(self, task_id: str, workspace_id: str) -> None:
        raise NotImplementedError

    async def owners(self) -> frozenset[str]:
        return self.begun_by

    async def recover(self, executor_ids: Sequence[str]) -> int:
        self.recovered.append(executor_ids)
        return 1

    async def completed(self, task_id: str) -> Sequence[StepRecord]:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError


@dataclass(slots=True)
class Node:
    """An orchestrator without its work."""

    member: Member
    running: RunningTasks = field(default_factory=RunningTasks)
    engine: IdleEngine = field(default_factory=IdleEngine)
    replaced: list[bool] = field(default_factory=list)
    shares: LeaseShares = field(init=False)
    fleet: Fleet = field(init=False)
    left: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shares = LeaseShares(self.member.leases, self.running.stopping)
        self.fleet = Fleet(
            executor_id=self.member.executor_id,
            executors=self.member.executors,
            shares=self.shares,
            running=self.running,
            engine=self.engine,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            replaced=lambda: self.replaced.append(True),
        )

    async def work(self, task_id: str, workspace_id: str) -> "asyncio.Task[None]":
        """A task at work under the lease."""
        begun = asyncio.Event()

        async def run() -> None:
            with self.running.entered(task_id):
                async with self.shares.share(workspace_id, task_id):
                    begun.set()
                    try:
                        await asyncio.sleep(SECONDS)
                    except asyncio.CancelledError:
                        self.left[task_id] = self.running.is_leaving

        task = asyncio.create_task(run())
        await begun.wait()
        return task


@pytest.fixture
async def nodes(postgres_url: str) -> AsyncIterator[list[Node]]:
    async with members(postgres_url, "a", "b") as made:
        nodes = [Node(member) for member in made]
        yield nodes
        for node in nodes:
            await node.running.stop()


async def held(node: Node) -> list[tuple[str, str, int]]:
    return [
        (lease.workspace_id, lease.executor_id, lease.generation)
        for lease in await node.member.leases.held()
    ]


async def test_tasks_of_a_workspace_share_its_lease(nodes: list[Node]) -> None:
    shares = nodes[0].shares
    async with shares.share("w", "t1") as first:
        async with shares.share("w", "t2") as second:
            assert first == second == 1
        assert await held(nodes[0]) == [("w", "a", 1)]
    assert await held(nodes[0]) == []
    async with shares.share("w", "t3") as third:
        assert third == 2


async def test_many_first_tasks_at_once_acquire_once(nodes: list[Node]) -> None:
    shares, together = nodes[0].shares, asyncio.Barrier(20)

    async def work(number: int) -> int:
        async with shares.share("w", f"t{number}") as generation:
            await together.wait()
            return generation

    assert await asyncio.gather(*map(work, range(20))) == [1] * 20
    assert await held(nodes[0]) == []


async def test_a_waiting_task_can_be_cancelled(nodes: list[Node]) -> None:
    async with nodes[1].shares.share("w", "t1"):
        waiting = asyncio.create_task(nodes[0].work("t2", "w"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.2)
        waiting.cancel()
        assert nodes[0].running.cancel("t2")
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert (await nodes[0].work("t3", "w")) is not None


async def test_an_outage_alone_costs_nothing(nodes: list[Node]) -> None:
    a, _ = nodes
    task = await a.work("t1", "w")
    await a.member.silence()
    a.member.clock.seconds += 100 * HEARTBEAT_SECONDS
    await a.fleet.beat()
    assert await held(a) == [("w", "a", 1)]
    assert not task.done()


async def test_only_the_tasks_of_a_lost_lease_are_left(nodes: list[Node]) -> None:
    a, b = nodes
    lost, kept = await a.work("t1", "w1"), await a.work("t2", "w2")
    await a.member.silence()
    assert await b.member.leases.acquire("w1") == 2
    await a.fleet.beat()
    await asyncio.wait_for(lost, SECONDS)
    assert a.left == {"t1": True}
    assert not kept.done()
    assert await held(a) == [("w1", "b", 2), ("w2", "a", 1)]


async def test_the_buried_leave_everything_and_begin_anew(nodes: list[Node]) -> None:
    a, b = nodes
    tasks = [await a.work("t1", "w1"), await a.work("t2", "w2")]
    await a.member.silence()
    b.engine.begun_by = frozenset({"a", "b"})
    await b.fleet.take_over()
    assert b.engine.recovered == [["a"]]
    await a.fleet.beat()
    await asyncio.gather(*tasks)
    assert a.left == {"t1": True, "t2": True}
    assert await b.member.executors.known() == {"a", "b"}
    await a.fleet.beat()
    assert await held(a) == []
    async with a.shares.share("w1", "t3") as generation:
        assert generation == 2


async def test_what_nobody_knows_is_taken_over_again_and_again(nodes: list[Node]) -> None:
    """Whoever buried an executor may have died before it took its tasks."""
    _, b = nodes
    b.engine.begun_by = frozenset({"long gone", "b"})
    for _ in range(2):
        await b.fleet.take_over()
    assert b.engine.recovered == [["long gone"], ["long gone"]]


async def test_nothing_is_taken_from_the_living(nodes: list[Node]) -> None:
    _, b = nodes
    b.engine.begun_by = frozenset({"a", "b"})
    await b.fleet.take_over()
    assert b.engine.recovered == []


async def test_the_replaced_leave_everything_and_end(nodes: list[Node]) -> None:
    a, _ = nodes
    task = await a.work("t1", "w")
    a.member.start()  # another process with a copy of the data directory
    await a.member.executors.register()
    await a.fleet.beat()
    await asyncio.wait_for(task, SECONDS)
    assert a.left == {"t1": True}
    assert a.replaced == [True]


async def test_a_lease_that_was_left_behind_is_given_up(nodes: list[Node]) -> None:
    a, b = nodes
    await a.member.leases.acquire("w")  # by an earlier process, say
    assert await b.member.can_acquire("w") is None
    await a.fleet.beat()
    assert await b.member.leases.acquire("w") == 2


async def test_a_stopping_orchestrator_keeps_its_leases_until_it_resigns(
    nodes: list[Node],
) -> None:
    a, b = nodes
    await a.work("t1", "w")
    await a.running.stop()
    await a.fleet.beat()
    assert await b.member.can_acquire("w") is None
    await a.member.executors.resign()
    assert await b.member.leases.acquire("w") == 2


@dataclass(frozen=True, slots=True)
class Kept:
    """A step's result."""

    text: str


class TestEngine:
    """The engine alone; that it hands tasks to other processes is shown in `tests/acceptance`."""

    @pytest.fixture
    async def engine(self, postgres_url: str) -> AsyncIterator[DbosEngine]:
        engine = DbosEngine(postgres_url, executor_id="a", per_workspace=1, at_once=4)
        yield engine
        await engine.stop()

    async def test_a_task_that_was_left_goes_back_to_the_queue(self, engine: DbosEngine) -> None:
        said: list[str] = []
        ended = asyncio.Event()

        async def run(_task_id: str, steps: Steps) -> None:
            async def refused() -> Kept:
                said.append("step")
                if said.count("step") < 3:
                    raise StaleLease("Taken over.")
                return Kept("done")

            said.append("begun")
            assert await steps.run("first", Kept, first) == Kept("first")
            assert await steps.run("second", Kept, refused) == Kept("done")
            ended.set()

        async def first() -> Kept:
            said.append("first")
            return Kept("first")

        await engine.start(run)
        await engine.submit("t1", "w")
        await asyncio.wait_for(ended.wait(), SECONDS)
        # A refusal is no result: the step was done again, the one before it was not.
        assert said == ["begun", "first", "step", "begun", "step", "begun", "step"]

    async def test_what_a_former_owner_records_is_refused(self, engine: DbosEngine) -> None:
        """Taken over while its step is under way: its result is not kept, the next run's is."""
        runs: list[str] = []
        go_on, ended = asyncio.Event(), asyncio.Event()

        async def run(_task_id: str, steps: Steps) -> None:
            number = len(runs) + 1

            async def work() -> Kept:
                if number == 1:
                    await go_on.wait()
                return Kept(f"of run {number}")

            runs.append("begun")
            try:
                runs.append((await steps.run("only", Kept, work)).text)
            except StaleLease:
                runs.append("refused")
                ended.set()
                raise
            go_on.set()

        await engine.start(run)
        await engine.submit("t1", "w")
        async with asyncio.timeout(SECONDS):
            while not runs:
                await asyncio.sleep(0.01)
            assert await engine.owners() == {"a"}
            assert await engine.recover(["a"]) == 1
            await ended.wait()
            while await engine.owners():
                await asyncio.sleep(0.01)
        assert runs == ["begun", "begun", "of run 2", "refused"]

    async def test_submitting_a_begun_task_again_changes_nothing(self, engine: DbosEngine) -> None:
        runs: list[str] = []
        go_on = asyncio.Event()

        async def run(task_id: str, _steps: Steps) -> None:
            runs.append(task_id)
            await go_on.wait()

        await engine.start(run)
        await engine.submit("t1", "w")
        async with asyncio.timeout(SECONDS):
            while not runs:
                await asyncio.sleep(0.01)
            await engine.submit("t1", "w")
            await engine.submit("t2", "w")  # waits for its turn, in the same order
            go_on.set()
            while len(runs) < 2:
                await asyncio.sleep(0.01)
        assert runs == ["t1", "t2"]
