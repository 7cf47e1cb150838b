"""One query for all that ask the same at the same time."""

import asyncio

import pytest

from orchestrator.storage.postgres.shared_reads import SharedReads

ROUNDS = 10
SETTLED = 5


class Counter:
    """A value that is read slowly: each reading ends when it is told to."""

    def __init__(self) -> None:
        self.readings: list[asyncio.Future[int]] = []

    async def read(self, _key: str) -> int:
        reading: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.readings.append(reading)
        return await reading


async def turn(times: int = SETTLED) -> None:
    """Let the loop go round: by default until all that can run has."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_those_who_ask_at_the_same_time_share_one_reading() -> None:
    counter = Counter()
    reads = SharedReads(counter.read)
    asking = [asyncio.create_task(reads.get("a")) for _ in range(3)]
    await turn()
    (reading,) = counter.readings
    reading.set_result(7)
    assert await asyncio.gather(*asking) == [(7, True), (7, False), (7, False)]


async def test_each_key_and_each_time_has_its_own_reading() -> None:
    counter = Counter()
    reads = SharedReads(counter.read)
    for number, keys in enumerate((["a", "b"], ["a", "b"])):
        asking = [asyncio.create_task(reads.get(key)) for key in keys]
        await turn()
        for reading in counter.readings[-2:]:
            reading.set_result(number)
        assert await asyncio.gather(*asking) == [(number, True)] * 2
    assert len(counter.readings) == 4


async def test_one_who_leaves_takes_the_answer_from_nobody() -> None:
    counter = Counter()
    reads = SharedReads(counter.read)
    leaving, staying = (asyncio.create_task(reads.get("a")) for _ in range(2))
    await turn()
    leaving.cancel()
    await turn()
    counter.readings[0].set_result(7)
    assert await staying == (7, False)


async def test_all_hear_of_a_failure_and_the_next_reads_again() -> None:
    counter = Counter()
    reads = SharedReads(counter.read)
    asking = [asyncio.create_task(reads.get("a")) for _ in range(2)]
    await turn()
    counter.readings[0].set_exception(OSError("gone"))
    for each in asking:
        with pytest.raises(OSError, match="gone"):
            await each
    again = asyncio.create_task(reads.get("a"))
    await turn()
    counter.readings[1].set_result(7)
    assert await again == (7, True)


@pytest.mark.parametrize("turns", range(6))
async def test_who_asks_as_a_reading_ends_is_not_answered_by_it_for_ever(turns: int) -> None:
    """The loop's turns between the end of a reading and its being forgotten are a trap."""
    counter = Counter()
    reads = SharedReads(counter.read)

    async def ask_until_fresh() -> int:
        await turn(turns)
        for asked in range(ROUNDS):
            _, fresh = await reads.get("a")
            if fresh:
                return asked
        return ROUNDS

    first = asyncio.create_task(reads.get("a"))
    await turn()
    late = asyncio.create_task(ask_until_fresh())
    counter.readings[0].set_result(1)
    await first
    await turn(turns + SETTLED)
    for reading in counter.readings[1:]:
        reading.set_result(2)
    assert await late < ROUNDS
