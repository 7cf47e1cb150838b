"""Locks by name."""

import asyncio

import pytest

from orchestrator.runtimes.locks import NamedLocks


async def test_one_name_admits_one_and_other_names_do_not_wait() -> None:
    locks, inside, most = NamedLocks(), 0, 0

    async def enter(name: str) -> None:
        nonlocal inside, most
        async with locks.hold(name):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(enter("same") for _ in range(5)))
    assert most == 1
    await asyncio.gather(*(enter(str(number)) for number in range(5)))
    assert most == 5


async def test_nothing_is_kept_of_a_lock_that_nobody_uses() -> None:
    locks = NamedLocks()
    with pytest.raises(ValueError, match="inside"):
        async with locks.hold("name"):
            raise ValueError("inside")
    assert locks._counted == {}


async def test_a_waiter_that_gives_up_leaves_the_lock_to_others() -> None:
    locks = NamedLocks()
    async with locks.hold("name"):
        waiter = asyncio.ensure_future(locks.hold("name").__aenter__())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
    async with asyncio.timeout(60), locks.hold("name"):
        pass
    assert locks._counted == {}
