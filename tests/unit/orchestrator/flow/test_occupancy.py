"""Occupancy: users and those who act on an empty container exclude each other."""

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ContainerStartFailed
from orchestrator.flow.occupancy import Occupancy

NAME = "repo-1"


async def fail() -> None:
    raise ContainerStartFailed("it never answered")


@settings(deadline=None)  # machines are shared
@given(st.randoms(use_true_random=False), st.integers(1, 8), st.integers(1, 4))
def test_nobody_acts_on_a_container_that_is_used(random: Random, users: int, reapers: int) -> None:
    async def pause() -> None:
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)

    async def run() -> None:
        occupancy, inside, acting, acted = Occupancy(), 0, False, 0

        async def use() -> None:
            nonlocal inside
            await pause()
            async with occupancy.at(NAME) as door:
                await pause()  # the container is brought up
                assert not acting
                door.users += 1
            inside += 1
            await pause()
            assert not acting
            inside -= 1
            occupancy.leave(NAME)

        async def reap() -> None:
            nonlocal acting, acted
            await pause()
            async with occupancy.at(NAME) as door:
                if door.users:
                    return
                acting = True
                await pause()
                assert not inside
                acting, acted = False, acted + 1

        await asyncio.gather(*(use() for _ in range(users)), *(reap() for _ in range(reapers)))

    asyncio.run(run())


async def test_what_an_earlier_process_left_running_is_in_use_until_its_task_has_gone_on() -> None:
    occupancy = Occupancy()
    await occupancy.keep(NAME)
    async with occupancy.at(NAME) as door:
        assert door.in_use
        door.users += 1
    occupancy.leave(NAME)
    async with occupancy.at(NAME) as door:
        assert not door.in_use


async def test_a_bring_up_that_fails_uses_nothing() -> None:
    occupancy = Occupancy()
    with pytest.raises(ContainerStartFailed):
        async with occupancy.at(NAME):
            await fail()
    async with occupancy.at(NAME) as door:
        assert not door.users
