"""The gate: a few at once, those that somebody waits for first."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.runtimes.gate import StartGate


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def enters(
    gate: StartGate, order: list[str], go: asyncio.Event
) -> Callable[[str], Coroutine[None, None, None]]:
    async def enter(name: str) -> None:
        async with gate.enter(patient=name.startswith("pool")):
            order.append(name)
            await go.wait()

    return enter


async def test_starts_go_before_refills_that_came_earlier() -> None:
    gate, order, go = StartGate(1), list[str](), asyncio.Event()
    enter = enters(gate, order, go)
    names = ["first", "pool-1", "pool-2", "a", "b"]
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(enter(name))
            await turns()
        assert order == ["first"]
        go.set()
    assert order == ["first", "a", "b", "pool-1", "pool-2"]


@dataclass(frozen=True, slots=True)
class Visit:
    """One who enters, after and for some turns of the loop, and perhaps gives up."""

    is_patient: bool
    turns_before: int
    turns_inside: int
    gives_up: bool


VISITS = st.builds(Visit, st.booleans(), st.integers(0, 2), st.integers(0, 3), st.booleans())


@settings(deadline=None)  # machines are shared
@given(st.lists(VISITS, max_size=20), st.integers(1, 4))
def test_no_more_than_so_many_are_inside_whoever_gives_up(visits: list[Visit], places: int) -> None:
    async def run() -> None:
        gate, inside, most = StartGate(places), 0, 0

        async def enter(visit: Visit) -> None:
            nonlocal inside, most
            async with gate.enter(patient=visit.is_patient):
                inside += 1
                most = max(most, inside)
                try:
                    await turns(visit.turns_inside)
                finally:
                    inside -= 1

        tasks = [asyncio.create_task(enter(each)) for each in visits]
        for visit, task in zip(visits, tasks, strict=True):
            await turns(visit.turns_before)
            if visit.gives_up:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= places
        # Nobody who gave up has taken a place along.
        last = Visit(is_patient=False, turns_before=0, turns_inside=0, gives_up=False)
        async with asyncio.timeout(60):
            async with asyncio.TaskGroup() as group:
                for _ in range(places):
                    group.create_task(enter(last))

    asyncio.run(run())


async def test_a_failure_inside_gives_the_place_back() -> None:
    gate = StartGate(1)
    with pytest.raises(ValueError, match="inside"):
        async with gate.enter():
            raise ValueError("inside")
    async with asyncio.timeout(60), gate.enter():
        pass
