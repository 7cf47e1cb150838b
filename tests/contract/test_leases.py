"""What `Leases` and `Executors` do."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.fleet import HEARTBEAT_SECONDS, Member, members

from orchestrator.domain.fleet import HeldLease
from orchestrator.errors import ExecutorBuried, ExecutorReplaced, StaleLease
from orchestrator.storage.postgres import Database


@pytest.fixture(params=["postgres"])
async def fleet(
    request: pytest.FixtureRequest, postgres_url: str
) -> AsyncIterator[Sequence[Member]]:
    async with members(postgres_url, "a", "b") as made:
        yield made


async def test_generations_rise_with_every_acquisition(fleet: Sequence[Member]) -> None:
    a, b = fleet
    for generation, member in enumerate((a, b, b, a), start=1):
        assert await member.leases.acquire("w") == generation
        await member.leases.release("w", generation)
    assert await a.leases.acquire("other") == 1


async def test_a_live_holder_keeps_others_waiting_until_it_lets_go(fleet: Sequence[Member]) -> None:
    a, b = fleet
    assert await a.leases.acquire("w") == 1
    assert await b.can_acquire("w") is None
    waiting = asyncio.create_task(b.leases.acquire("w"))
    await a.leases.release("w", 1)
    assert await asyncio.wait_for(waiting, 10) == 2


async def test_a_dead_holder_keeps_nobody_waiting(fleet: Sequence[Member]) -> None:
    a, b = fleet
    await a.leases.acquire("w")
    await a.silence()
    assert await b.leases.acquire("w") == 2
    with pytest.raises(StaleLease):
        await a.leases.confirm("w", 1)
    assert await a.executors.beat() == {}  # nobody has buried it: it lost this lease and no more


async def test_who_was_not_heard_for_long_enough_judges_nobody(fleet: Sequence[Member]) -> None:
    a, b = fleet
    await a.leases.acquire("w")
    await a.silence()
    b.clock.seconds += 100 * HEARTBEAT_SECONDS  # the database was away for b as well
    assert await b.executors.bury() == []
    assert await b.can_acquire("w") is None
    await b.executors.beat()
    assert await b.executors.bury() == []
    await b.settle()
    assert await b.executors.bury() == ["a"]


async def test_only_the_holder_of_the_generation_can_let_go(fleet: Sequence[Member]) -> None:
    a, b = fleet
    await a.leases.acquire("w")
    await a.silence()
    await b.leases.acquire("w")
    await a.leases.release("w", 1)
    await b.leases.release("w", 1)
    await b.leases.confirm("w", 2)
    await a.executors.beat()
    assert await a.can_acquire("w") is None


async def test_a_lease_is_confirmed_to_its_holder_alone(fleet: Sequence[Member]) -> None:
    a, b = fleet
    generation = await a.leases.acquire("w")
    await a.leases.confirm("w", generation)
    for member, claimed in ((b, generation), (a, generation + 1), (a, generation - 1)):
        with pytest.raises(StaleLease):
            await member.leases.confirm("w", claimed)
    await a.leases.release("w", generation)
    with pytest.raises(StaleLease):
        await a.leases.confirm("w", generation)
    with pytest.raises(StaleLease):
        await a.leases.confirm("never", 1)


async def test_held_are_the_leases_of_the_living(fleet: Sequence[Member]) -> None:
    a, b = fleet
    await a.leases.acquire("w2")
    await b.leases.acquire("w1")
    await b.leases.acquire("w3")
    await b.leases.release("w3", 1)
    assert await a.leases.held() == [HeldLease("w1", "b", 1), HeldLease("w2", "a", 1)]
    await b.silence()
    assert await a.leases.held() == [HeldLease("w2", "a", 1)]


async def test_a_heartbeat_tells_our_leases(fleet: Sequence[Member]) -> None:
    a, b = fleet
    assert await a.executors.beat() == {}
    await a.leases.acquire("w1")
    await a.leases.acquire("w2")
    await b.leases.acquire("w3")
    assert await a.executors.beat() == {"w1": 1, "w2": 1}


async def test_one_buries_and_the_buried_hears_of_it(fleet: Sequence[Member]) -> None:
    a, b = fleet
    await a.leases.acquire("w")
    assert await b.executors.bury() == []
    await a.silence()
    buried = await asyncio.gather(*(b.executors.bury() for _ in range(5)))
    assert sorted(map(list, buried)) == [[], [], [], [], ["a"]]
    assert await b.executors.known() == {"b"}
    with pytest.raises(ExecutorBuried):
        await a.executors.beat()
    waiting = asyncio.create_task(a.leases.acquire("v"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await a.executors.register()
    assert await asyncio.wait_for(waiting, 10) == 1
    await a.leases.release("v", 1)
    assert await a.executors.beat() == {"w": 1}
    assert await a.leases.acquire("w") == 2


async def test_a_silent_executor_that_nobody_buried_goes_on(fleet: Sequence[Member]) -> None:
    a, b = fleet
    await a.leases.acquire("w")
    await a.silence()
    assert await a.executors.beat() == {"w": 1}
    assert await b.executors.bury() == []
    await a.leases.confirm("w", 1)


async def test_nobody_buries_itself(fleet: Sequence[Member]) -> None:
    _, b = fleet
    await b.silence()
    assert await b.executors.bury() == []


async def test_a_restarted_executor_takes_its_own_lease_at_once(fleet: Sequence[Member]) -> None:
    a, b = fleet
    before = a.executors
    await a.leases.acquire("w")
    a.start()
    await a.executors.register()
    assert await a.leases.acquire("w") == 2
    with pytest.raises(ExecutorReplaced):
        await before.beat()
    assert await b.can_acquire("w") is None


async def test_whoever_resigns_leaves_nothing_to_wait_for(fleet: Sequence[Member]) -> None:
    a, b = fleet
    await a.leases.acquire("w")
    await a.executors.resign()
    assert await b.leases.held() == []
    assert await b.leases.acquire("w") == 2
    assert await b.executors.known() == {"b"}


async def test_of_many_that_race_one_holds_at_a_time(fleet: Sequence[Member]) -> None:
    inside: list[str] = []
    generations: list[int] = []

    async def turns(member: Member) -> None:
        for _ in range(5):
            generation = await member.leases.acquire("w")
            inside.append(member.executor_id)
            assert inside == [member.executor_id]
            generations.append(generation)
            await asyncio.sleep(0)
            inside.remove(member.executor_id)
            await member.leases.release("w", generation)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for member in fleet:
            group.create_task(turns(member))
    assert generations == sorted(set(generations))


ACTS = st.sampled_from(["acquire", "release", "silence", "beat", "bury", "restart", "resign"])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(acts=st.lists(st.tuples(ACTS, st.integers(0, 2)), max_size=25))
def test_whatever_happens_generations_rise_and_one_live_executor_holds(
    postgres_url: str, acts: list[tuple[str, int]]
) -> None:
    asyncio.run(_play(postgres_url, acts))


async def _play(url: str, acts: list[tuple[str, int]]) -> None:
    database = await Database.open(url, max_size=4)
    try:
        await database.rows("DELETE FROM executors")
        await database.rows("DELETE FROM leases")
        made = [Member(database, name) for name in "abc"]
        for member in made:
            await member.executors.register()
            await member.settle()
        await _interleave(made, acts)
    finally:
        await database.close()


@dataclass(slots=True)
class Model:
    """What must be true of the database: who is registered, who silent, who holds the lease."""

    registered: set[str]
    silent: set[str] = field(default_factory=set)
    holder: str | None = None
    highest: int = 0

    @property
    def alive(self) -> set[str]:
        return self.registered - self.silent

    async def acquire(self, member: Member) -> None:
        own = member.executor_id
        free = self.holder in (None, own) or self.holder not in self.alive
        may = free and own in self.registered
        got = await member.leases.acquire("w") if may else await member.can_acquire("w")
        assert (got is not None) is may
        if got is not None:
            assert got > self.highest
            self.highest, self.holder = got, own

    async def release(self, member: Member) -> None:
        await member.leases.release("w", self.highest)
        self.holder = None if self.holder == member.executor_id else self.holder

    async def silence(self, member: Member) -> None:
        await member.silence()
        self.silent.add(member.executor_id)

    async def beat(self, member: Member) -> None:
        if member.executor_id in self.registered:
            await member.settle()
            self.silent.discard(member.executor_id)
        else:
            with pytest.raises(ExecutorBuried):
                await member.executors.beat()

    async def bury(self, member: Member) -> None:
        dead = (self.silent & self.registered) - {member.executor_id}
        assert await member.executors.bury() == sorted(dead)
        self.registered -= dead

    async def restart(self, member: Member) -> None:
        member.start()
        await member.executors.register()
        await member.settle()
        self.registered.add(member.executor_id)
        self.silent.discard(member.executor_id)

    async def resign(self, member: Member) -> None:
        await member.executors.resign()
        if self.holder == member.executor_id and self.holder in self.registered:
            self.holder = None
        self.registered.discard(member.executor_id)


async def _interleave(made: list[Member], acts: list[tuple[str, int]]) -> None:
    model = Model({member.executor_id for member in made})
    for act, index in acts:
        await getattr(model, act)(made[index])
        held = await made[0].leases.held()
        expected = [model.holder] if model.holder in model.alive else []
        assert [lease.executor_id for lease in held] == expected
